// ERRORS AND SMALL TOOLS: files, UTF-8, paths.

#include "support.h"

// JSON.

#include "support.h"

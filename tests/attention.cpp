// ATTENTION.

#include "support.h"

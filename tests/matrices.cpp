// MATRICES.

#include "support.h"

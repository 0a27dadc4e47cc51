/* cmocka with what it wants included before it. */
#ifndef SUPPORT_BASE_H
#define SUPPORT_BASE_H

#include "base/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif

#include "relayd/relayd.h"

/* Apart, so that a new revision compiles nothing else anew. */
const char *relayd_revision(void)
{
	return RELAYD_REVISION;
}

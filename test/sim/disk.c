/* The queue's own enemy serves here too: what is not synced is lost, torn or garbled by a power cut. */
#include "test/unit/queue/support_fault_disk.c"
#include "test/unit/queue/support_fault_platter.c"

/* groups_calls.h — from a decoded request to the coordinator on control and back. */
#ifndef VARVE_GROUPS_CALLS_H
#define VARVE_GROUPS_CALLS_H
#include "broker.h"
#include "call.h"
#include "groups.h"

/* Posts the call to control, where go() runs; its done() becomes the reply. Any thread. */
void vv_group_call_post(struct vv_call *c, void (*go)(struct vv_groups *g, struct vv_group_call *gc));
#endif

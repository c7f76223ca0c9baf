/* cmd_undelete.h — the list of deleted topics, for `varve topic list --deleted`. */
#ifndef VARVE_CLI_CMD_UNDELETE_H
#define VARVE_CLI_CMD_UNDELETE_H
#include "admin.h"

int vv_cli_list_deleted(const struct vv_args *a, struct vv_client *c, bool json); /* an exit code */
#endif

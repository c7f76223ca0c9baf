/* metrics_broker.h — the running broker's metrics page. */
#ifndef VARVE_BROKER_METRICS_BROKER_H
#define VARVE_BROKER_METRICS_BROKER_H
#include "broker.h"
#include "metrics.h"

/* Serves b on its config's metrics.listener. where becomes "HOST:PORT" as bound, or "-" when
 * metrics.listener=off (then *out is NULL). Call when topics, tier and net exist; stop before
 * they go. */
int vv_metrics_broker_start(struct vv_broker *b, struct vv_metrics_server **out, char *where,
                            size_t where_n, struct vv_error *e);
#endif

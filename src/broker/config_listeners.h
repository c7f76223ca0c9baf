/* config_listeners.h — listeners, advertised.listeners and the like: parsing and checking. */
#ifndef VARVE_BROKER_CONFIG_LISTENERS_H
#define VARVE_BROKER_CONFIG_LISTENERS_H
#include "config.h"

/* "HOST:PORT", ":PORT", "[V6]:PORT" -> host and port (0..65535). E_CONFIG with *e. */
int vv_endpoint_parse(const char *text, size_t n, struct vv_endpoint *out, struct vv_error *e);
/* Fills c->listen, c->advertised, c->listen_count. *controllers: the KRaft controller listeners
 * that were left out (count). */
int vv_listeners_derive(struct vv_broker_config *c, const char *controller_names, int *controllers,
                        struct vv_error *e);
#endif

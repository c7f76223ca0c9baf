/* config_listeners.c — NAME://HOST:PORT lists.
 *
 * A listener's name maps to a protocol by listener.security.protocol.map (its own name when it is
 * a protocol's). KRaft controller listeners (controller.listener.names, or the customary name
 * CONTROLLER) are left out: a stock file of Apache Kafka names them. Everything but PLAINTEXT is
 * refused, never served in the clear instead. Pure but for the host name of this machine. */
#include "config_listeners.h"

#include <string.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

int vv_endpoint_parse(const char *text, size_t n, struct vv_endpoint *out, struct vv_error *e)
{
    const char *colon = memrchr(text, ':', n), *host = text;
    if (!colon) return vv_error_set(e, VV_E_CONFIG, "'%.*s' has no :PORT", (int)n, text);
    size_t host_n = (size_t)(colon - text), port_n = n - host_n - 1;
    if (host_n >= 2 && host[0] == '[' && host[host_n - 1] == ']') {
        host++;
        host_n -= 2;
    } else if (memchr(host, ':', host_n)) {
        return vv_error_set(e, VV_E_CONFIG, "'%.*s': an IPv6 address needs brackets, [::1]:9092",
                            (int)n, text);
    }
    long port = 0;
    for (size_t i = 0; i < port_n; i++) {
        char c = colon[1 + i];
        if (c < '0' || c > '9' || port > 65535)
            port = 70000;
        else
            port = port * 10 + (c - '0');
    }
    if (!port_n || port > 65535)
        return vv_error_set(e, VV_E_CONFIG, "'%.*s': the port is not a number from 0 to 65535",
                            (int)n, text);
    if (host_n >= sizeof out->host)
        return vv_error_set(e, VV_E_CONFIG, "'%.*s': the host name is too long", 60, text);
    for (size_t i = 0; i < host_n; i++)
        if ((unsigned char)host[i] <= ' ' || host[i] == '/')
            return vv_error_set(e, VV_E_CONFIG, "'%.*s' is not HOST:PORT", (int)n, text);
    memcpy(out->host, host, host_n);
    out->host[host_n] = 0;
    out->port = (int)port;
    return 0;
}

/* One element of a comma-separated list, blanks trimmed; false at the end. */
static bool next_item(const char **at, const char **item, size_t *n)
{
    const char *p = *at;
    while (*p == ' ' || *p == ',')
        p++;
    if (!*p) return false;
    *item = p;
    size_t len = strcspn(p, ",");
    *at = p + len;
    while (len && (p[len - 1] == ' ' || p[len - 1] == '\t'))
        len--;
    *n = len;
    return true;
}

static bool in_list(const char *list, const char *word)
{
    const char *item;
    size_t n;
    while (list && next_item(&list, &item, &n))
        if (strlen(word) == n && !strncasecmp(item, word, n)) return true;
    return false;
}

static int parse_item(const char *item, size_t n, struct vv_endpoint *out, struct vv_error *e)
{
    const char *sep = memmem(item, n, "://", 3);
    if (!sep || sep == item)
        return vv_error_set(e, VV_E_CONFIG, "'%.*s' is not NAME://HOST:PORT", (int)n, item);
    size_t name_n = (size_t)(sep - item);
    if (name_n >= sizeof out->name)
        return vv_error_set(e, VV_E_CONFIG, "'%.*s': the listener name is too long", 40, item);
    for (size_t i = 0; i < name_n; i++)
        out->name[i] = (char)(item[i] >= 'a' && item[i] <= 'z' ? item[i] - 32 : item[i]);
    out->name[name_n] = 0;
    return vv_endpoint_parse(sep + 3, n - name_n - 3, out, e);
}

/* The protocol of a listener name; NULL when the map does not have it. */
static bool protocol_of(const char *map, const char *name, char *out, size_t max)
{
    const char *item;
    size_t n, name_n = strlen(name);
    while (map && next_item(&map, &item, &n))
        if (n > name_n + 1 && !strncasecmp(item, name, name_n) && item[name_n] == ':' &&
            n - name_n - 1 < max) {
            memcpy(out, item + name_n + 1, n - name_n - 1);
            out[n - name_n - 1] = 0;
            return true;
        }
    return false;
}

static int check_protocol(const struct vv_broker_config *c, const char *name, struct vv_error *e)
{
    char protocol[32] = "";
    if (!protocol_of(c->listener_security_protocol_map, name, protocol, sizeof protocol)) {
        if (strcmp(name, "PLAINTEXT") && strcmp(name, "SSL") && strncmp(name, "SASL_", 5))
            return vv_error_set(e, VV_E_CONFIG,
                                "listeners: %s has no protocol; add %s:PLAINTEXT to "
                                "listener.security.protocol.map",
                                name, name);
        snprintf(protocol, sizeof protocol, "%.*s", (int)sizeof protocol - 1, name);
    }
    if (!strcasecmp(protocol, "PLAINTEXT")) return 0;
    if (!strcasecmp(protocol, "SSL") || !strncasecmp(protocol, "SASL_", 5))
        return vv_error_set(
            e, VV_E_CONFIG,
            "listeners: %s speaks %s, and TLS and SASL are not here yet; use PLAINTEXT on a "
            "trusted network, or put a TLS proxy in front",
            name, protocol);
    return vv_error_set(e, VV_E_CONFIG,
                        "listener.security.protocol.map: %s is no protocol (PLAINTEXT, SSL, "
                        "SASL_PLAINTEXT, SASL_SSL)",
                        protocol);
}

static bool every_address(const char *host)
{
    return !*host || !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

static int parse_listeners(struct vv_broker_config *c, const char *controller_names,
                           int *controllers, struct vv_error *e)
{
    const char *at = c->listeners ? c->listeners : "", *item;
    size_t n;
    int rc;
    while (next_item(&at, &item, &n)) {
        struct vv_endpoint ep = {0};
        if ((rc = parse_item(item, n, &ep, e))) return rc;
        if (controller_names ? in_list(controller_names, ep.name)
                             : !strcmp(ep.name, "CONTROLLER")) {
            ++*controllers;
            continue;
        }
        if ((rc = check_protocol(c, ep.name, e))) return rc;
        for (size_t i = 0; i < c->listen_count; i++) {
            if (!strcmp(c->listen[i].name, ep.name))
                return vv_error_set(e, VV_E_CONFIG, "listeners: %s is there twice", ep.name);
            if (ep.port && c->listen[i].port == ep.port && !strcmp(c->listen[i].host, ep.host))
                return vv_error_set(e, VV_E_CONFIG, "listeners: port %d is there twice", ep.port);
        }
        if (c->listen_count == VV_LISTENERS_MAX)
            return vv_error_set(e, VV_E_CONFIG, "listeners: more than %d", VV_LISTENERS_MAX);
        c->listen[c->listen_count++] = ep;
    }
    if (!c->listen_count)
        return vv_error_set(
            e, VV_E_CONFIG,
            "listeners: '%s' names no listener for clients; say PLAINTEXT://HOST:PORT",
            c->listeners ? c->listeners : "");
    return 0;
}

static int parse_advertised(struct vv_broker_config *c, const char *controller_names,
                            struct vv_error *e)
{
    const char *at = c->advertised_listeners, *item;
    size_t n;
    int rc;
    while (at && next_item(&at, &item, &n)) {
        struct vv_endpoint ep = {0};
        if ((rc = parse_item(item, n, &ep, e))) return rc;
        if (controller_names ? in_list(controller_names, ep.name) : !strcmp(ep.name, "CONTROLLER"))
            continue;
        size_t i = 0;
        while (i < c->listen_count && strcmp(c->listen[i].name, ep.name))
            i++;
        if (i == c->listen_count)
            return vv_error_set(e, VV_E_CONFIG, "advertised.listeners: %s is not one of listeners",
                                ep.name);
        if (every_address(ep.host))
            return vv_error_set(
                e, VV_E_CONFIG,
                "advertised.listeners: clients cannot connect to '%s'; name the host they "
                "reach",
                ep.host);
        c->advertised[i] = ep;
    }
    return 0;
}

int vv_listeners_derive(struct vv_broker_config *c, const char *controller_names, int *controllers,
                        struct vv_error *e)
{
    c->listen_count = 0;
    *controllers = 0;
    int rc = parse_listeners(c, controller_names, controllers, e);
    if (rc) return rc;
    for (size_t i = 0; i < c->listen_count; i++) {
        c->advertised[i] = c->listen[i];
        c->advertised[i].port = 0;
        if (every_address(c->listen[i].host) &&
            gethostname(c->advertised[i].host, sizeof c->advertised[i].host - 1))
            strcpy(c->advertised[i].host, "localhost");
    }
    if ((rc = parse_advertised(c, controller_names, e))) return rc;
    if (c->inter_broker_listener_name) {
        size_t i = 0;
        while (i < c->listen_count && strcasecmp(c->listen[i].name, c->inter_broker_listener_name))
            i++;
        if (i == c->listen_count)
            return vv_error_set(e, VV_E_CONFIG,
                                "inter.broker.listener.name: %s is not one of listeners",
                                c->inter_broker_listener_name);
    }
    return 0;
}

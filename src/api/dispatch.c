/* dispatch.c — from a frame to a handler and back.
 *
 * A frame is decoded into its exchange's arena: the header, then the body by the API's schema. What cannot be decoded,
 * an unknown key and a version that is not served close the connection, as Kafka does, with one line in the log; only
 * ApiVersions answers a version it lacks (KIP-511). Nothing is allocated by a declared count (src/wire).
 *
 * Threads: decoding runs on the connection's reactor; the answering functions run on any thread. */
#include "call.h"
#include "metrics.h"
#include "broker.h"
#include "varve/vlog.h"

#include <stdio.h>

enum { KEY_PRODUCE = 0, KEY_API_VERSIONS = 18 };

static const struct {
    int16_t key;
    vv_handler *handle;
} handlers[] = {
#define VV_X(key, fn) {key, fn},
    VV_HANDLERS(VV_X)
#undef VV_X
};

vv_handler *vv_handler_find(int16_t key)
{
    size_t low = 0, high = VV_COUNT(handlers);
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (handlers[mid].key == key) return handlers[mid].handle;
        if (handlers[mid].key < key)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static void answered(struct vv_call *c)
{
    vv_metrics_api(c->api->key, vv_mono_us(c->broker->env) - c->x->received_us);
}

int vv_call_encode(struct vv_call *c, const void *response, struct vv_chain *body)
{
    struct vv_out out;
    vv_out_init(&out);
    int err = vv_response_header_encode(c->api->key, c->version, c->correlation, &out);
    if (!err) err = vv_msg_encode(c->api->response, c->version, response, &out);
    if (!err) return vv_out_finish(&out, body);
    vv_out_release(&out);
    return err;
}

void vv_call_reply(struct vv_call *c, const void *response)
{
    struct vv_chain body = {0};
    int err = vv_call_encode(c, response, &body);
    if (err) {
        vv_chain_release(&body);
        char why[96];
        snprintf(why, sizeof why, "its %s answer could not be encoded (%s)", c->api->name, vv_err_name(err));
        vv_call_close(c, why);
        return;
    }
    answered(c);
    vv_exchange_reply(c->x, &body);
}

void vv_call_drop(struct vv_call *c)
{
    answered(c);
    vv_exchange_drop(c->x);
}

void vv_call_close(struct vv_call *c, const char *why)
{
    answered(c);
    vv_exchange_close(c->x, why);
}

static void refuse(struct vv_exchange *x, const struct vv_request_header *h, const char *why)
{
    vv_count(bad_requests, 1);
    char text[160];
    if (h->api)
        snprintf(text, sizeof text, "%s version %d: %s", h->api->name, h->version, why);
    else
        snprintf(text, sizeof text, "API key %d: %s", h->key, why);
    vv_exchange_close(x, text);
}

/* Both what we tell clients and what the codec knows: Produce is advertised below what is served (src/wire/README.md).
 */
static bool version_served(const struct vv_api *api, int16_t version)
{
    return version >= api->min && version <= api->max && version >= api->request->min && version <= api->request->max;
}

static void on_frame(void *ctx, struct vv_exchange *x)
{
    struct vv_request_header h = {0};
    if (vv_request_header_decode(x->frame.p, x->frame.n, &h)) {
        vv_count(bad_requests, 1);
        vv_exchange_close(x, "the request's header is malformed");
        return;
    }
    vv_handler *handle = h.api ? vv_handler_find(h.key) : NULL;
    if (!handle) {
        refuse(x, &h, "not served");
        return;
    }
    struct vv_call *c = vv_arena_alloc(&x->arena, sizeof *c);
    void *req = vv_arena_alloc(&x->arena, h.api->request->root->size);
    if (!c || !req) {
        vv_exchange_close(x, "out of memory");
        return;
    }
    *c = (struct vv_call){x, ctx, h.api, h.version, h.correlation_id, h.client_id, req};
    if (!version_served(h.api, h.version)) {
        if (h.key == KEY_API_VERSIONS) {
            vv_api_versions_unsupported(c);
            return;
        }
        refuse(x, &h, "a version that is not served");
        return;
    }
    size_t used = 0, n = x->frame.n - h.size;
    int err = vv_msg_decode(h.api->request, h.version, x->frame.p + h.size, n, &x->arena, req, &used);
    if (err || used != n) {
        refuse(x, &h, !err ? "bytes after its end" : err == VV_E_LIMIT ? "too large in memory" : err == VV_E_NOMEM ? "out of memory" : "malformed");
        return;
    }
    handle(c);
}

const struct vv_net_handler vv_api_net_handler = {.on_frame = on_frame};

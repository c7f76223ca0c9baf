/* api_versions.c — ApiVersions: what is served, in which versions (KIP-35, KIP-511).
 *
 * Advertised is what has a handler; the ranges are those of the API table. No feature is finalized: a client that sees
 * transaction.version=2 would rely on what is not there. Threads: inline on the reactor. */
#include "call.h"
#include "broker.h"
#include "gen/messages.h"

enum { KEY_API_VERSIONS = 18 };

static bool software_name_ok(struct vv_str s)
{
    if (s.n <= 0) return false;
    for (int32_t i = 0; i < s.n; i++) {
        char ch = s.p[i];
        bool alnum = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9');
        bool inner = i > 0 && i < s.n - 1 && (ch == '-' || ch == '.');
        if (!alnum && !inner) return false;
    }
    return true;
}

static int fill_keys(struct vv_call *c, struct ApiVersionsResponse *r)
{
    if (VV_ARRAY_NEW(r->ApiKeys, ApiVersionsResponse_ApiVersion, vv_call_arena(c), vv_apis_count)) return VV_E_LIMIT;
    int32_t n = 0;
    for (size_t i = 0; i < vv_apis_count; i++) {
        if (!vv_handler_find(vv_apis[i].key)) continue;
        r->ApiKeys.v[n].ApiKey = vv_apis[i].key;
        r->ApiKeys.v[n].MinVersion = vv_apis[i].min;
        r->ApiKeys.v[n++].MaxVersion = vv_apis[i].max;
    }
    r->ApiKeys.n = n;
    return 0;
}

void vv_handle_api_versions(struct vv_call *c)
{
    const struct ApiVersionsRequest *q = c->req;
    struct ApiVersionsResponse r;
    VV_MSG_INIT(ApiVersionsResponse, &r);
    bool named =
        c->version < 3 || (software_name_ok(q->ClientSoftwareName) && software_name_ok(q->ClientSoftwareVersion));
    if (!named)
        r.ErrorCode = VV_INVALID_REQUEST;
    else if (fill_keys(c, &r))
        r.ErrorCode = VV_UNKNOWN_SERVER_ERROR;
    vv_call_reply(c, &r);
}

void vv_api_versions_unsupported(struct vv_call *c)
{
    struct ApiVersionsResponse_ApiVersion own = {KEY_API_VERSIONS, c->api->min, c->api->max};
    struct ApiVersionsResponse r;
    VV_MSG_INIT(ApiVersionsResponse, &r);
    r.ErrorCode = VV_UNSUPPORTED_VERSION;
    r.ApiKeys.v = &own;
    r.ApiKeys.n = 1;
    c->version = 0;
    vv_call_reply(c, &r);
}

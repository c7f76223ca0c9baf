/* header.c — request and response headers, and the look-up of APIs. Contract: varve/wire.h.
 *
 * The version of a header follows from the version of the body. Two exceptions are the protocol's: the client id
 * has a 16-bit length even in flexible headers, and the response header of ApiVersions is always version 0, because
 * a client that asks for a version the broker does not know must still be able to read the answer. Pure; any thread. */
#include "varve/wire.h"
#include "tags.h"

enum { KEY_API_VERSIONS = 18 };

const struct vv_api *vv_api_by_key(int16_t key)
{
    size_t low = 0, high = vv_apis_count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (vv_apis[mid].key == key) return &vv_apis[mid];
        if (vv_apis[mid].key < key)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

int16_t vv_request_header_version(int16_t key, int16_t version)
{
    const struct vv_api *api = vv_api_by_key(key);
    return api && version >= api->flexible ? 2 : 1;
}

int16_t vv_response_header_version(int16_t key, int16_t version)
{
    return key != KEY_API_VERSIONS && vv_request_header_version(key, version) == 2;
}

int vv_request_header_decode(const uint8_t *p, size_t n, struct vv_request_header *header)
{
    if (n < 10) return VV_E_PROTO;
    *header = (struct vv_request_header){
        .key = (int16_t)vv_get16(p),
        .version = (int16_t)vv_get16(p + 2),
        .correlation_id = (int32_t)vv_get32(p + 4),
        .client_id = VV_STR_NULL,
    };
    header->api = vv_api_by_key(header->key);
    int16_t length = (int16_t)vv_get16(p + 8);
    size_t at = 10;
    if (length < -1 || length > (int64_t)(n - at)) return VV_E_PROTO;
    if (length >= 0) {
        header->client_id = (struct vv_str){(const char *)p + at, length};
        at += (size_t)length;
    }
    if (vv_request_header_version(header->key, header->version) == 2) {
        size_t used = vv_tags_skip(p + at, n - at);
        if (!used) return VV_E_PROTO;
        at += used;
    }
    header->size = at;
    return VV_OK;
}

int vv_request_header_encode(const struct vv_request_header *header, struct vv_out *out)
{
    struct vv_str id = header->client_id;
    if (id.n > INT16_MAX) return VV_E_LIMIT;
    uint8_t *p = vv_out_reserve(out, 10);
    if (!p) return out->err;
    vv_put16(p, (uint16_t)header->key);
    vv_put16(p + 2, (uint16_t)header->version);
    vv_put32(p + 4, (uint32_t)header->correlation_id);
    vv_put16(p + 8, (uint16_t)(id.n < 0 ? -1 : id.n));
    if (id.n > 0) vv_out_bytes(out, id.p, (size_t)id.n);
    if (vv_request_header_version(header->key, header->version) == 2) vv_out_bytes(out, "", 1);
    return out->err;
}

int vv_response_header_encode(int16_t key, int16_t version, int32_t correlation_id, struct vv_out *out)
{
    uint8_t *p = vv_out_reserve(out, 4);
    if (!p) return out->err;
    vv_put32(p, (uint32_t)correlation_id);
    if (vv_response_header_version(key, version)) vv_out_bytes(out, "", 1);
    return out->err;
}

int vv_response_header_decode(int16_t key, int16_t version, const uint8_t *p, size_t n, int32_t *correlation_id,
                              size_t *used)
{
    if (n < 4) return VV_E_PROTO;
    *correlation_id = (int32_t)vv_get32(p);
    *used = 4;
    if (!vv_response_header_version(key, version)) return VV_OK;
    size_t tags = vv_tags_skip(p + 4, n - 4);
    *used += tags;
    return tags ? VV_OK : VV_E_PROTO;
}

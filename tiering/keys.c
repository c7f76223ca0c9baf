/* keys.c — see keys.h. */
#include "keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void topic_text(struct vv_uuid id, char out[23])
{
    vv_uuid_text(id, out);
}

void vv_segkey_format(const struct vv_segkey *k, char out[VV_KEY_MAX])
{
    char id[23];
    topic_text(k->topic_id, id);
    snprintf(out, VV_KEY_MAX,
             "v1/t/%s/%05" PRId32 "/%020" PRId64 "-%020" PRId64 "-%08" PRIx32 "-%04" PRIx32 "-%016" PRIx64 ".seg", id,
             k->partition, k->base, k->last, (uint32_t)k->epoch, k->generation, k->nonce);
}

static bool take(const char **p, const char *literal)
{
    size_t n = strlen(literal);
    if (strncmp(*p, literal, n)) return false;
    *p += n;
    return true;
}

/* At least `min` digits; more only without a leading zero is left to the round trip check. */
static bool digits(const char **p, int radix, uint64_t *out)
{
    uint64_t v = 0;
    const char *start = *p;
    for (;; (*p)++) {
        int d = **p >= '0' && **p <= '9' ? **p - '0' : radix == 16 && **p >= 'a' && **p <= 'f' ? **p - 'a' + 10 : -1;
        if (d < 0) break;
        if (v > (UINT64_MAX - (uint64_t)d) / (uint64_t)radix) return false;
        v = v * (uint64_t)radix + (uint64_t)d;
    }
    *out = v;
    return *p > start;
}

int vv_segkey_parse(const char *key, struct vv_segkey *out)
{
    char id[23], again[VV_KEY_MAX];
    uint64_t partition, base, last, epoch, generation, nonce;
    const char *p = key;
    if (!take(&p, "v1/t/") || strlen(p) < 23) return VV_E_PROTO;
    memcpy(id, p, 22);
    id[22] = 0;
    p += 22;
    if (!vv_uuid_parse(id, &out->topic_id) || !take(&p, "/") || !digits(&p, 10, &partition) || !take(&p, "/") ||
        !digits(&p, 10, &base) || !take(&p, "-") || !digits(&p, 10, &last) || !take(&p, "-") || !digits(&p, 16, &epoch) ||
        !take(&p, "-") || !digits(&p, 16, &generation) || !take(&p, "-") || !digits(&p, 16, &nonce) || !take(&p, ".seg") || *p)
        return VV_E_PROTO;
    if (partition > INT32_MAX || base > INT64_MAX || last > INT64_MAX || last < base || epoch > UINT32_MAX ||
        generation > UINT32_MAX)
        return VV_E_PROTO;
    out->partition = (int32_t)partition;
    out->base = (int64_t)base;
    out->last = (int64_t)last;
    out->epoch = (int32_t)(uint32_t)epoch;
    out->generation = (uint32_t)generation;
    out->nonce = nonce;
    vv_segkey_format(out, again);
    return strcmp(again, key) ? VV_E_PROTO : VV_OK;
}

void vv_key_topic(struct vv_uuid topic_id, char out[VV_KEY_MAX])
{
    char id[23];
    topic_text(topic_id, id);
    snprintf(out, VV_KEY_MAX, "v1/t/%s/topic.json", id);
}

void vv_key_topic_prefix(struct vv_uuid topic_id, char out[VV_KEY_MAX])
{
    char id[23];
    topic_text(topic_id, id);
    snprintf(out, VV_KEY_MAX, "v1/t/%s/", id);
}

void vv_key_part_prefix(struct vv_uuid topic_id, int32_t partition, char out[VV_KEY_MAX])
{
    char id[23];
    topic_text(topic_id, id);
    snprintf(out, VV_KEY_MAX, "v1/t/%s/%05" PRId32 "/", id, partition);
}

void vv_key_manifest_prefix(struct vv_uuid topic_id, char out[VV_KEY_MAX])
{
    char id[23];
    topic_text(topic_id, id);
    snprintf(out, VV_KEY_MAX, "v1/m/%s/", id);
}

void vv_key_pages_prefix(struct vv_uuid topic_id, int32_t partition, char out[VV_KEY_MAX])
{
    char id[23];
    topic_text(topic_id, id);
    snprintf(out, VV_KEY_MAX, "v1/m/%s/%05" PRId32 "/", id, partition);
}

void vv_key_head(struct vv_uuid topic_id, int32_t partition, char out[VV_KEY_MAX])
{
    char id[23];
    topic_text(topic_id, id);
    snprintf(out, VV_KEY_MAX, "v1/m/%s/%05" PRId32 "/head.json", id, partition);
}

void vv_key_page(struct vv_uuid topic_id, int32_t partition, int level, const char *sha256, char out[VV_KEY_MAX])
{
    char id[23];
    topic_text(topic_id, id);
    snprintf(out, VV_KEY_MAX, "v1/m/%s/%05" PRId32 "/%d-%s.json", id, partition, level, sha256);
}

void vv_key_after(struct vv_uuid topic_id, int32_t partition, int64_t offset, char out[VV_KEY_MAX])
{
    char prefix[VV_KEY_MAX];
    vv_key_part_prefix(topic_id, partition, prefix);
    snprintf(out, VV_KEY_MAX, "%.200s%020" PRId64 "~", prefix, offset); /* '~' sorts after '-' */
}

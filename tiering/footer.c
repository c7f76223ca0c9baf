/* footer.c — see footer.h. The byte layout is docs/bucket-format.md's; change both together or neither. */
#include "footer.h"

#include <stdlib.h>

static const uint8_t magic[8] = {'V', 'A', 'R', 'V', 'E', 'S', 'E', 'G'};

/* Sections: tag | required. */
#define SECTIONS(X)                                                                                \
    X(SEGM, true)  /* identity, 112 bytes */                                                       \
    X(TOPC, true)  /* topic name */                                                                \
    X(CLUS, true)  /* cluster id */                                                                \
    X(BLKS, true)  /* block table, as in blocks.c */                                               \
    X(EPCH, true)  /* leader epochs */                                                             \
    X(ABRT, true)  /* aborted transactions */                                                      \
    X(PROD, false) /* producer snapshot */
enum section {
#define VV_X(tag, required) SEC_##tag,
    SECTIONS(VV_X)
#undef VV_X
    SEC_COUNT
};
static const struct {
    char tag[5];
    bool required;
} sections[] = {
#define VV_X(tag, required) {#tag, required},
    SECTIONS(VV_X)
#undef VV_X
};

#define SEGM_BYTES 112u
#define HEAD_BYTES 8u /* of a section: tag, length */
#define EPOCH_BYTES 12u
#define ABORTED_BYTES 32u

static size_t section_bytes(const struct vv_footer *f, enum section s)
{
    switch (s) {
    case SEC_SEGM: return SEGM_BYTES;
    case SEC_TOPC: return strlen(f->topic);
    case SEC_CLUS: return strlen(f->cluster_id);
    case SEC_BLKS: return vv_blocks_encoded_size(&f->blocks);
    case SEC_EPCH: return 4 + f->epoch_count * EPOCH_BYTES;
    case SEC_ABRT: return 4 + f->aborted_count * ABORTED_BYTES;
    case SEC_PROD: return f->snapshot_n;
    case SEC_COUNT: break;
    }
    return 0;
}

static void put_segm(const struct vv_footer *f, uint8_t *p)
{
    memset(p, 0, SEGM_BYTES);
    memcpy(p, f->key.topic_id.b, 16);
    vv_put32(p + 16, (uint32_t)f->key.partition);
    vv_put32(p + 20, (uint32_t)f->key.epoch);
    vv_put64(p + 24, (uint64_t)f->key.base);
    vv_put64(p + 32, (uint64_t)f->key.last);
    vv_put64(p + 40, f->key.nonce);
    vv_put32(p + 48, f->key.generation);
    vv_put32(p + 52, 0);
    vv_put64(p + 56, f->records);
    vv_put64(p + 64, f->writer_epoch);
    vv_put64(p + 72, (uint64_t)f->first_ts);
    vv_put64(p + 80, (uint64_t)f->max_ts);
    vv_put64(p + 88, (uint64_t)f->sealed_ms);
    vv_put64(p + 96, (uint64_t)f->log_start);
    vv_put64(p + 104, 0);
}

static void put_section(const struct vv_footer *f, enum section s, uint8_t *p)
{
    switch (s) {
    case SEC_SEGM: put_segm(f, p); break;
    case SEC_TOPC: memcpy(p, f->topic, strlen(f->topic)); break;
    case SEC_CLUS: memcpy(p, f->cluster_id, strlen(f->cluster_id)); break;
    case SEC_BLKS: vv_blocks_encode(&f->blocks, p); break;
    case SEC_EPCH:
        vv_put32(p, (uint32_t)f->epoch_count);
        for (size_t i = 0; i < f->epoch_count; i++) {
            vv_put32(p + 4 + i * EPOCH_BYTES, (uint32_t)f->epochs[i].epoch);
            vv_put64(p + 8 + i * EPOCH_BYTES, (uint64_t)f->epochs[i].start);
        }
        break;
    case SEC_ABRT:
        vv_put32(p, (uint32_t)f->aborted_count);
        for (size_t i = 0; i < f->aborted_count; i++) {
            uint8_t *q = p + 4 + i * ABORTED_BYTES;
            vv_put64(q, (uint64_t)f->aborted[i].producer_id);
            vv_put64(q + 8, (uint64_t)f->aborted[i].first_offset);
            vv_put64(q + 16, (uint64_t)f->aborted[i].last_offset);
            vv_put64(q + 24, (uint64_t)f->aborted[i].last_stable_offset);
        }
        break;
    case SEC_PROD:
        if (f->snapshot_n) memcpy(p, f->snapshot, f->snapshot_n);
        break;
    case SEC_COUNT: break;
    }
}

static void put_trailer(const struct vv_footer *f, uint8_t *footer, size_t n)
{
    uint8_t *t = footer + n;
    memcpy(t, magic, sizeof magic);
    vv_put32(t + 8, (uint32_t)n);
    vv_put32(t + 12, vv_crc32c(0, footer, n));
    vv_put64(t + 16, f->data_bytes);
    vv_put16(t + 24, VV_FOOTER_VERSION);
    vv_put16(t + 26, 0); /* flags: block compression and encryption, none yet */
    vv_put32(t + 28, vv_crc32c(0, t, 28));
}

int vv_footer_encode(const struct vv_footer *f, uint8_t **p, size_t *n)
{
    size_t total = 0;
    if (f->blocks.bytes != f->data_bytes) return VV_E_CORRUPT; /* the table must describe exactly these bytes */
    for (int s = 0; s < SEC_COUNT; s++) total += HEAD_BYTES + section_bytes(f, (enum section)s);
    if (total > VV_FOOTER_MAX) return VV_E_LIMIT;
    uint8_t *buf = malloc(total + VV_TRAILER_BYTES), *at = buf;
    if (!buf) return VV_E_NOMEM;
    for (int s = 0; s < SEC_COUNT; s++) {
        size_t len = section_bytes(f, (enum section)s);
        memcpy(at, sections[s].tag, 4);
        vv_put32(at + 4, (uint32_t)len);
        put_section(f, (enum section)s, at + HEAD_BYTES);
        at += HEAD_BYTES + len;
    }
    put_trailer(f, buf, total);
    *p = buf;
    *n = total + VV_TRAILER_BYTES;
    return VV_OK;
}

/* ---- decoding ---- */

static int get_segm(const uint8_t *p, size_t n, struct vv_footer *f)
{
    if (n < SEGM_BYTES) return VV_E_CORRUPT; /* longer: fields of a later minor version */
    memcpy(f->key.topic_id.b, p, 16);
    f->key.partition = (int32_t)vv_get32(p + 16);
    f->key.epoch = (int32_t)vv_get32(p + 20);
    f->key.base = (int64_t)vv_get64(p + 24);
    f->key.last = (int64_t)vv_get64(p + 32);
    f->key.nonce = vv_get64(p + 40);
    f->key.generation = vv_get32(p + 48);
    f->records = vv_get64(p + 56);
    f->writer_epoch = vv_get64(p + 64);
    f->first_ts = (int64_t)vv_get64(p + 72);
    f->max_ts = (int64_t)vv_get64(p + 80);
    f->sealed_ms = (int64_t)vv_get64(p + 88);
    f->log_start = (int64_t)vv_get64(p + 96);
    if (f->key.partition < 0 || f->key.base < 0 || f->key.last < f->key.base || f->log_start < 0) return VV_E_CORRUPT;
    return VV_OK;
}

static int get_text(const uint8_t *p, size_t n, size_t max, char **out)
{
    if (n > max || memchr(p, 0, n)) return VV_E_CORRUPT;
    *out = strndup((const char *)p, n);
    return *out ? VV_OK : VV_E_NOMEM;
}

/* Count of fixed-size items, proven by the section's length. */
static int get_count(const uint8_t *p, size_t n, size_t item, size_t *count)
{
    if (n < 4 || (n - 4) % item || (n - 4) / item != vv_get32(p)) return VV_E_CORRUPT;
    *count = vv_get32(p);
    return VV_OK;
}

static int get_epochs(const uint8_t *p, size_t n, struct vv_footer *f)
{
    size_t count;
    if (get_count(p, n, EPOCH_BYTES, &count)) return VV_E_CORRUPT;
    f->epochs = calloc(count + 1, sizeof *f->epochs);
    if (!f->epochs) return VV_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        struct vv_epoch *x = &f->epochs[i];
        x->epoch = (int32_t)vv_get32(p + 4 + i * EPOCH_BYTES);
        x->start = (int64_t)vv_get64(p + 8 + i * EPOCH_BYTES);
        if (i && (x->epoch <= x[-1].epoch || x->start < x[-1].start)) return VV_E_CORRUPT;
    }
    f->epoch_count = count;
    return VV_OK;
}

static int get_aborted(const uint8_t *p, size_t n, struct vv_footer *f)
{
    size_t count;
    if (get_count(p, n, ABORTED_BYTES, &count)) return VV_E_CORRUPT;
    f->aborted = calloc(count + 1, sizeof *f->aborted);
    if (!f->aborted) return VV_E_NOMEM;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *q = p + 4 + i * ABORTED_BYTES;
        f->aborted[i] = (struct vv_aborted){(int64_t)vv_get64(q), (int64_t)vv_get64(q + 8), (int64_t)vv_get64(q + 16),
                                            (int64_t)vv_get64(q + 24)};
    }
    f->aborted_count = count;
    return VV_OK;
}

static int get_section(enum section s, const uint8_t *p, size_t n, struct vv_footer *f)
{
    switch (s) {
    case SEC_SEGM: return get_segm(p, n, f);
    case SEC_TOPC: return get_text(p, n, 249, &f->topic);
    case SEC_CLUS: return get_text(p, n, 255, &f->cluster_id);
    case SEC_BLKS: return vv_blocks_decode(p, n, &f->blocks);
    case SEC_EPCH: return get_epochs(p, n, f);
    case SEC_ABRT: return get_aborted(p, n, f);
    case SEC_PROD:
        f->snapshot = malloc(n + 1);
        if (!f->snapshot) return VV_E_NOMEM;
        memcpy(f->snapshot, p, n);
        f->snapshot_n = n;
        return VV_OK;
    case SEC_COUNT: break;
    }
    return VV_OK;
}

static int get_sections(const uint8_t *p, size_t n, struct vv_footer *f)
{
    unsigned seen = 0;
    while (n) {
        if (n < HEAD_BYTES) return VV_E_CORRUPT;
        size_t len = vv_get32(p + 4);
        if (len > n - HEAD_BYTES) return VV_E_CORRUPT;
        for (unsigned s = 0; s < SEC_COUNT; s++) {
            if (memcmp(p, sections[s].tag, 4)) continue;
            if (seen & (1u << s)) return VV_E_CORRUPT;
            int err = get_section((enum section)s, p + HEAD_BYTES, len, f);
            if (err) return err;
            seen |= 1u << s;
        }
        p += HEAD_BYTES + len;
        n -= HEAD_BYTES + len;
    }
    for (unsigned s = 0; s < SEC_COUNT; s++)
        if (sections[s].required && !(seen & (1u << s))) return VV_E_CORRUPT;
    return VV_OK;
}

static int check_meaning(const struct vv_footer *f)
{
    const struct vv_blocks *b = &f->blocks;
    if (b->bytes != f->data_bytes) return VV_E_CORRUPT;
    if (b->count && (b->v[0].first_offset < f->key.base || b->v[b->count - 1].first_offset > f->key.last)) return VV_E_CORRUPT;
    return VV_OK;
}

int vv_footer_decode(const uint8_t *p, size_t n, uint64_t object_bytes, struct vv_footer *out, size_t *need,
                     struct vv_error *e)
{
    *out = (struct vv_footer){0};
    if (object_bytes < VV_TRAILER_BYTES || n > object_bytes)
        return vv_error_set(e, VV_E_CORRUPT, "too short for a segment object");
    if (need) *need = VV_TRAILER_BYTES;
    if (n < VV_TRAILER_BYTES) return VV_E_AGAIN;
    const uint8_t *t = p + n - VV_TRAILER_BYTES;
    if (memcmp(t, magic, sizeof magic) || vv_crc32c(0, t, 28) != vv_get32(t + 28))
        return vv_error_set(e, VV_E_CORRUPT, "no valid trailer at the end of the object: truncated, damaged or not a segment");
    uint16_t version = vv_get16(t + 24), flags = vv_get16(t + 26);
    if (version != VV_FOOTER_VERSION || flags)
        return vv_error_set(e, VV_E_UNSUPPORTED, "object format version %u, flags %#x: a newer Varve wrote it; upgrade this one",
                            version, flags);
    size_t len = vv_get32(t + 8);
    uint64_t data = vv_get64(t + 16);
    if (len > VV_FOOTER_MAX || data > object_bytes || object_bytes - data != len + VV_TRAILER_BYTES)
        return vv_error_set(e, VV_E_CORRUPT, "the trailer's lengths do not add up to the object's size of %llu",
                            (unsigned long long)object_bytes);
    if (need) *need = len + VV_TRAILER_BYTES;
    if (n < len + VV_TRAILER_BYTES) return VV_E_AGAIN;
    if (vv_crc32c(0, t - len, len) != vv_get32(t + 12)) return vv_error_set(e, VV_E_CORRUPT, "the footer's checksum is wrong");
    out->version = version;
    out->data_bytes = data;
    int err = get_sections(t - len, len, out);
    if (!err) err = check_meaning(out);
    if (err) {
        vv_footer_release(out);
        return vv_error_set(e, err, "the footer's content makes no sense");
    }
    return VV_OK;
}

void vv_footer_release(struct vv_footer *f)
{
    free(f->topic);
    free(f->cluster_id);
    free(f->epochs);
    free(f->aborted);
    free(f->snapshot);
    vv_blocks_release(&f->blocks);
    *f = (struct vv_footer){0};
}

int vv_footer_check(const struct vv_footer *f, const struct vv_segkey *key, const char *cluster_id, struct vv_error *e)
{
    char want[VV_KEY_MAX], have[VV_KEY_MAX];
    vv_segkey_format(key, want);
    vv_segkey_format(&f->key, have);
    if (strcmp(want, have)) return vv_error_set(e, VV_E_CORRUPT, "object %s holds the bytes of %s", want, have);
    if (cluster_id && strcmp(cluster_id, f->cluster_id))
        return vv_error_set(e, VV_E_CORRUPT, "object %s belongs to cluster %s, not to %s", want, f->cluster_id, cluster_id);
    return VV_OK;
}

void vv_segkey_of(struct vv_uuid topic_id, int32_t partition, const struct vv_extent *x, struct vv_segkey *out)
{
    *out = (struct vv_segkey){topic_id, partition, x->base, x->last, x->epoch, x->generation, x->nonce};
}

/* footer.c — see footer.h. The byte layout is docs/bucket-format.md's; change both together or neither. */
#include "footer.h"

#include <openssl/crypto.h>
#include <stdlib.h>

static const uint8_t magic[8] = {'V', 'A', 'R', 'V', 'E', 'S', 'E', 'G'};

/* Sections, in order: tag | in which objects it must be | sealed in an encrypted object. */
enum need { ALWAYS, OPTIONAL, IF_FLAGS, IF_ENCRYPTED };
#define SECTIONS(X)                                                                                \
    X(SEGM, ALWAYS, false)       /* identity, 112 bytes */                                         \
    X(TOPC, ALWAYS, false)       /* topic name */                                                  \
    X(CLUS, ALWAYS, false)       /* cluster id */                                                  \
    X(ENCR, IF_ENCRYPTED, false) /* the wrapped data key */                                        \
    X(BLKS, ALWAYS, true)        /* block table, as in blocks.c */                                 \
    X(STOR, IF_FLAGS, true)      /* where the blocks are stored */                                 \
    X(EPCH, ALWAYS, true)        /* leader epochs */                                               \
    X(ABRT, ALWAYS, true)        /* aborted transactions */                                        \
    X(PROD, OPTIONAL, true)      /* producer snapshot */                                           \
    X(LINK, OPTIONAL, true)      /* the chain: chain.h */                                          \
    X(PADD, OPTIONAL, false)     /* nothing */
enum section {
#define VV_X(tag, need, secret) SEC_##tag,
    SECTIONS(VV_X)
#undef VV_X
    SEC_COUNT
};
static const struct {
    char tag[5];
    enum need need;
    bool secret;
} sections[] = {
#define VV_X(tag, need, secret) {#tag, need, secret},
    SECTIONS(VV_X)
#undef VV_X
};
/* In an encrypted object the secret sections are the plaintext of one more section, the last one: SEAL. */
static const char seal_tag[] = "SEAL";

static bool has_section(unsigned flags, enum section s)
{
    enum need need = sections[s].need;
    return need == ALWAYS || need == OPTIONAL || (need == IF_FLAGS ? flags != 0 : (flags & VV_OBJECT_ENCRYPTED) != 0);
}

#define SEGM_BYTES 112u
#define HEAD_BYTES 8u /* of a section: tag, length */
#define EPOCH_BYTES 12u
#define ABORTED_BYTES 32u
#define STORED_BYTES 16u
#define ENCR_FIXED (4u + VV_SEAL_NONCE_BYTES + VV_DATA_KEY_BYTES + VV_SEAL_TAG_BYTES) /* and the key's id */
#define ENCR_SCHEME 1u                                                                /* AES-256-GCM, wrapped by AES-256-GCM */

static size_t section_bytes(const struct vv_footer *f, enum section s)
{
    switch (s) {
    case SEC_SEGM: return SEGM_BYTES;
    case SEC_TOPC: return strlen(f->topic);
    case SEC_CLUS: return strlen(f->cluster_id);
    case SEC_ENCR: return ENCR_FIXED + strlen(f->sealing->key_id);
    case SEC_BLKS: return vv_blocks_encoded_size(&f->blocks);
    case SEC_STOR: return 4 + (size_t)f->blocks.count * STORED_BYTES;
    case SEC_EPCH: return 4 + f->epoch_count * EPOCH_BYTES;
    case SEC_ABRT: return 4 + f->aborted_count * ABORTED_BYTES;
    case SEC_PROD: return f->snapshot_n;
    case SEC_LINK: return f->link_count ? VV_CHAIN_BYTES + 4 + f->link_count * VV_LINK_BYTES : 0;
    case SEC_PADD: return f->pad - HEAD_BYTES;
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

static void put_encr(const struct vv_sealing *x, uint8_t *p)
{
    size_t id = strlen(x->key_id);
    vv_put16(p, ENCR_SCHEME);
    vv_put16(p + 2, (uint16_t)id);
    memcpy(p + 4, x->key_id, id);
    memcpy(p + 4 + id, x->wrap_nonce, sizeof x->wrap_nonce);
    memcpy(p + 4 + id + sizeof x->wrap_nonce, x->wrapped, sizeof x->wrapped);
}

static void put_stored(const struct vv_footer *f, uint8_t *p)
{
    vv_put32(p, f->blocks.count);
    p += 4;
    for (uint32_t i = 0; i < f->blocks.count; i++, p += STORED_BYTES) {
        vv_put64(p, f->stored[i].at);
        vv_put32(p + 8, f->stored[i].n);
        vv_put32(p + 12, f->stored[i].how);
    }
}

static void put_section(const struct vv_footer *f, enum section s, uint8_t *p)
{
    switch (s) {
    case SEC_SEGM: put_segm(f, p); break;
    case SEC_TOPC: memcpy(p, f->topic, strlen(f->topic)); break;
    case SEC_CLUS: memcpy(p, f->cluster_id, strlen(f->cluster_id)); break;
    case SEC_ENCR: put_encr(f->sealing, p); break;
    case SEC_BLKS: vv_blocks_encode(&f->blocks, p); break;
    case SEC_STOR: put_stored(f, p); break;
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
    case SEC_PADD: memset(p, 0, f->pad - HEAD_BYTES); break;
    case SEC_LINK:
        if (!f->link_count) break;
        memcpy(p, f->chain, VV_CHAIN_BYTES);
        vv_put32(p + VV_CHAIN_BYTES, (uint32_t)f->link_count);
        for (size_t i = 0; i < f->link_count; i++) vv_link_put(&f->links[i], p + VV_CHAIN_BYTES + 4 + i * VV_LINK_BYTES);
        break;
    case SEC_COUNT: break;
    }
}

static uint64_t stored_total(const struct vv_footer *f)
{
    return f->flags ? f->stored_bytes : f->data_bytes;
}

static void put_trailer(const struct vv_footer *f, uint8_t *footer, size_t n)
{
    uint8_t *t = footer + n;
    memcpy(t, magic, sizeof magic);
    vv_put32(t + 8, (uint32_t)n);
    vv_put32(t + 12, vv_crc32c(0, footer, n));
    vv_put64(t + 16, stored_total(f));
    vv_put16(t + 24, VV_FOOTER_VERSION);
    vv_put16(t + 26, f->flags);
    vv_put32(t + 28, vv_crc32c(0, t, 28));
}

/* ---- the seal ---- */

static const uint8_t wrap_aad[] = "varve data key";                       /* without its NUL */
static const uint8_t seal_nonce[VV_SEAL_NONCE_BYTES] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* What the seal vouches for besides its content: the object's name, the trailer's lengths and flags, the readable sections.
 * malloc'ed. */
static uint8_t *seal_aad(const struct vv_footer *f, const uint8_t *readable, size_t readable_n, size_t *n)
{
    char name[VV_KEY_MAX];
    vv_segkey_format(&f->key, name);
    size_t name_n = strlen(name);
    uint8_t *p = malloc(name_n + 12 + readable_n);
    if (!p) return NULL;
    memcpy(p, name, name_n);
    vv_put64(p + name_n, stored_total(f));
    vv_put16(p + name_n + 8, VV_FOOTER_VERSION);
    vv_put16(p + name_n + 10, f->flags);
    if (readable_n) memcpy(p + name_n + 12, readable, readable_n);
    *n = name_n + 12 + readable_n;
    return p;
}

int vv_footer_make_key(struct vv_footer *f, struct vv_keyring *keys, struct vv_env *env, struct vv_error *e)
{
    uint8_t kek[VV_DATA_KEY_BYTES];
    struct vv_sealing *x = f->sealing = calloc(1, sizeof *x);
    if (!x) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    int err = vv_keyring_active(keys, x->key_id, kek, e);
    if (err) return err;
    vv_random(env, x->data_key, sizeof x->data_key);
    vv_random(env, x->wrap_nonce, sizeof x->wrap_nonce);
    err = vv_seal(kek, x->wrap_nonce, wrap_aad, sizeof wrap_aad - 1, x->data_key, sizeof x->data_key, x->wrapped);
    OPENSSL_cleanse(kek, sizeof kek);
    return err;
}

static int unwrap(struct vv_footer *f, struct vv_keyring *keys, struct vv_error *e)
{
    uint8_t kek[VV_DATA_KEY_BYTES];
    struct vv_sealing *x = f->sealing;
    int err = vv_keyring_find(keys, x->key_id, kek, e);
    if (err) return err;
    err = vv_unseal(kek, x->wrap_nonce, wrap_aad, sizeof wrap_aad - 1, x->wrapped, sizeof x->wrapped, x->data_key);
    OPENSSL_cleanse(kek, sizeof kek);
    if (err == VV_E_CORRUPT)
        err = vv_error_set(e, VV_E_KEY, "the key called %s is not the one that it was encrypted with", x->key_id);
    return err;
}

/* ---- links ---- */

int vv_footer_add_links(struct vv_footer *to, const struct vv_footer *member, bool first)
{
    if (first) memcpy(to->chain, member->chain, sizeof to->chain);
    bool whole = member->link_count && (first || to->link_count);
    if (!whole) {
        to->link_count = 0;
        return VV_OK;
    }
    struct vv_link *v = realloc(to->links, (to->link_count + member->link_count) * sizeof *v);
    if (!v) return VV_E_NOMEM;
    to->links = v;
    memcpy(v + to->link_count, member->links, member->link_count * sizeof *v);
    to->link_count += member->link_count;
    return VV_OK;
}

/* ---- encoding ---- */

/* The sections of one kind; returns their bytes, writes them if p. */
static size_t put_sections(const struct vv_footer *f, bool all, bool secret, uint8_t *p)
{
    size_t total = 0;
    for (int s = 0; s < SEC_COUNT; s++) {
        if (!has_section(f->flags, (enum section)s) || (!all && sections[s].secret != secret)) continue;
        if (s == SEC_PADD && f->pad < HEAD_BYTES) continue;
        size_t len = section_bytes(f, (enum section)s);
        if (p) {
            memcpy(p + total, sections[s].tag, 4);
            vv_put32(p + total + 4, (uint32_t)len);
            put_section(f, (enum section)s, p + total + HEAD_BYTES);
        }
        total += HEAD_BYTES + len;
    }
    return total;
}

/* The secret sections, sealed, behind the readable ones. */
static int put_seal(const struct vv_footer *f, const uint8_t *readable, size_t readable_n, uint8_t *p, size_t secret_n)
{
    size_t aad_n;
    uint8_t *plain = malloc(secret_n), *aad = seal_aad(f, readable, readable_n, &aad_n);
    int err = plain && aad ? VV_OK : VV_E_NOMEM;
    if (!err) {
        put_sections(f, false, true, plain);
        memcpy(p, seal_tag, 4);
        vv_put32(p + 4, (uint32_t)(secret_n + VV_SEAL_TAG_BYTES));
        err = vv_seal(f->sealing->data_key, seal_nonce, aad, aad_n, plain, secret_n, p + HEAD_BYTES);
    }
    free(plain);
    free(aad);
    return err;
}

int vv_footer_encode(const struct vv_footer *f, uint8_t **p, size_t *n)
{
    bool encrypted = f->flags & VV_OBJECT_ENCRYPTED;
    if (f->blocks.bytes != f->data_bytes) return VV_E_CORRUPT; /* the table must describe exactly these bytes */
    size_t readable = put_sections(f, !encrypted, false, NULL), secret = encrypted ? put_sections(f, false, true, NULL) : 0;
    size_t total = readable + (encrypted ? HEAD_BYTES + secret + VV_SEAL_TAG_BYTES : 0);
    if (total > VV_FOOTER_MAX) return VV_E_LIMIT;
    uint8_t *buf = malloc(total + VV_TRAILER_BYTES);
    if (!buf) return VV_E_NOMEM;
    put_sections(f, !encrypted, false, buf);
    int err = encrypted ? put_seal(f, buf, readable, buf + readable, secret) : VV_OK;
    if (err) {
        free(buf);
        return err;
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

static int get_encr(const uint8_t *p, size_t n, struct vv_footer *f)
{
    if (n < 4) return VV_E_CORRUPT;
    size_t id = vv_get16(p + 2);
    if (n != ENCR_FIXED + id || !vv_key_id_valid((const char *)p + 4, id)) return VV_E_CORRUPT;
    if (vv_get16(p) != ENCR_SCHEME) return VV_E_UNSUPPORTED;
    struct vv_sealing *x = f->sealing = calloc(1, sizeof *x);
    if (!x) return VV_E_NOMEM;
    memcpy(x->key_id, p + 4, id);
    memcpy(x->wrap_nonce, p + 4 + id, sizeof x->wrap_nonce);
    memcpy(x->wrapped, p + 4 + id + sizeof x->wrap_nonce, sizeof x->wrapped);
    return VV_OK;
}

static int get_stored(const uint8_t *p, size_t n, struct vv_footer *f)
{
    size_t count;
    if (get_count(p, n, STORED_BYTES, &count) || count != f->blocks.count) return VV_E_CORRUPT; /* BLKS comes first */
    f->stored = calloc(count + 1, sizeof *f->stored);
    if (!f->stored) return VV_E_NOMEM;
    p += 4;
    for (size_t i = 0; i < count; i++, p += STORED_BYTES)
        f->stored[i] = (struct vv_stored){vv_get64(p), vv_get32(p + 8), vv_get32(p + 12)};
    return VV_OK;
}

static int get_links(const uint8_t *p, size_t n, struct vv_footer *f)
{
    size_t count;
    if (!n) return VV_OK;
    if (n < VV_CHAIN_BYTES || get_count(p + VV_CHAIN_BYTES, n - VV_CHAIN_BYTES, VV_LINK_BYTES, &count)) return VV_E_CORRUPT;
    f->links = calloc(count + 1, sizeof *f->links);
    if (!f->links) return VV_E_NOMEM;
    memcpy(f->chain, p, VV_CHAIN_BYTES);
    for (size_t i = 0; i < count; i++) vv_link_get(p + VV_CHAIN_BYTES + 4 + i * VV_LINK_BYTES, &f->links[i]);
    f->link_count = count;
    return VV_OK;
}

static int get_section(enum section s, const uint8_t *p, size_t n, struct vv_footer *f)
{
    switch (s) {
    case SEC_SEGM: return get_segm(p, n, f);
    case SEC_TOPC: return get_text(p, n, 249, &f->topic);
    case SEC_CLUS: return get_text(p, n, 255, &f->cluster_id);
    case SEC_ENCR: return get_encr(p, n, f);
    case SEC_BLKS: return vv_blocks_decode(p, n, &f->blocks);
    case SEC_STOR: return get_stored(p, n, f);
    case SEC_EPCH: return get_epochs(p, n, f);
    case SEC_ABRT: return get_aborted(p, n, f);
    case SEC_PROD:
        f->snapshot = malloc(n + 1);
        if (!f->snapshot) return VV_E_NOMEM;
        memcpy(f->snapshot, p, n);
        f->snapshot_n = n;
        return VV_OK;
    case SEC_LINK: return get_links(p, n, f);
    case SEC_PADD: return VV_OK;
    case SEC_COUNT: break;
    }
    return VV_OK;
}

struct decoder {
    struct vv_footer *f;
    struct vv_keyring *keys;
    unsigned seen;
    const uint8_t *footer; /* its first byte */
    struct vv_error *e;
};

/* A section by its tag; SEC_COUNT: unknown, to be skipped. */
static enum section section_of(const uint8_t *tag)
{
    unsigned s = 0;
    while (s < SEC_COUNT && memcmp(tag, sections[s].tag, 4)) s++;
    return (enum section)s;
}

/* A row of sections. Encrypted: the readable ones (*seal, *seal_n get what is sealed), or the secret ones. */
static int get_sections(struct decoder *d, const uint8_t *p, size_t n, bool secret, const uint8_t **seal, size_t *seal_n)
{
    bool encrypted = d->f->flags & VV_OBJECT_ENCRYPTED;
    while (n) {
        if (n < HEAD_BYTES) return VV_E_CORRUPT;
        size_t len = vv_get32(p + 4);
        if (len > n - HEAD_BYTES) return VV_E_CORRUPT;
        enum section s = section_of(p);
        if (s != SEC_COUNT) {
            bool here = has_section(d->f->flags, s) && (!encrypted || sections[s].secret == secret);
            if (!here || d->seen & (1u << s)) return VV_E_CORRUPT;
            int err = get_section(s, p + HEAD_BYTES, len, d->f);
            if (err) return err;
            d->seen |= 1u << s;
        } else if (!memcmp(p, seal_tag, 4)) {
            if (!encrypted || secret || len != n - HEAD_BYTES || len < VV_SEAL_TAG_BYTES) return VV_E_CORRUPT;
            *seal = p + HEAD_BYTES;
            *seal_n = len;
        }
        p += HEAD_BYTES + len;
        n -= HEAD_BYTES + len;
    }
    return VV_OK;
}

static int open_seal(struct decoder *d, const uint8_t *seal, size_t n)
{
    const unsigned needed = 1u << SEC_SEGM | 1u << SEC_ENCR;
    if (!seal || (d->seen & needed) != needed) return VV_E_CORRUPT;
    int err = unwrap(d->f, d->keys, d->e);
    if (err) return err;
    size_t aad_n, plain_n = n - VV_SEAL_TAG_BYTES;
    uint8_t *plain = malloc(plain_n + 1), *aad = seal_aad(d->f, d->footer, (size_t)(seal - HEAD_BYTES - d->footer), &aad_n);
    err = plain && aad ? VV_OK : VV_E_NOMEM;
    if (!err) err = vv_unseal(d->f->sealing->data_key, seal_nonce, aad, aad_n, seal, n, plain);
    if (err == VV_E_CORRUPT) vv_error_set(d->e, err, "the footer is not what was sealed: it was changed");
    if (!err) err = get_sections(d, plain, plain_n, true, NULL, NULL);
    free(plain);
    free(aad);
    return err;
}

static int get_footer(struct decoder *d, const uint8_t *p, size_t n)
{
    const uint8_t *seal = NULL;
    size_t seal_n = 0;
    int err = get_sections(d, p, n, false, &seal, &seal_n);
    if (!err && d->f->flags & VV_OBJECT_ENCRYPTED) err = open_seal(d, seal, seal_n);
    for (unsigned s = 0; s < SEC_COUNT && !err; s++)
        if (sections[s].need != OPTIONAL && has_section(d->f->flags, (enum section)s) && !(d->seen & (1u << s))) err = VV_E_CORRUPT;
    return err;
}

/* Stored blocks tile the stored bytes; what is not compressed has its own length, what is has one that its bytes can have. */
static int check_stored(const struct vv_footer *f)
{
    const uint32_t extra = f->flags & VV_OBJECT_ENCRYPTED ? VV_SEAL_TAG_BYTES : 0;
    uint64_t at = 0;
    for (uint32_t i = 0; i < f->blocks.count; i++) {
        const struct vv_stored *x = &f->stored[i];
        uint64_t plain = (uint64_t)f->blocks.v[i].n + extra;
        if (x->at != at || x->n <= extra || x->n > plain) return VV_E_CORRUPT;
        bool packed = x->how == VV_STORED_ZSTD && f->flags & VV_OBJECT_COMPRESSED;
        if (packed && !vv_block_may_unpack(x->n - extra, f->blocks.v[i].n)) return VV_E_CORRUPT;
        if (packed ? x->n == plain : x->how != VV_STORED_PLAIN || x->n != plain) return VV_E_CORRUPT;
        at += x->n;
    }
    return at == f->stored_bytes ? VV_OK : VV_E_CORRUPT;
}

/* The links are the object's segments: they tile its range and make up its bytes. */
static int check_links(const struct vv_footer *f)
{
    int64_t next = f->key.base;
    uint64_t bytes = 0;
    for (size_t i = 0; i < f->link_count; i++) {
        const struct vv_link *l = &f->links[i];
        if (l->base != next || l->last < l->base || l->last > f->key.last || l->bytes > f->data_bytes - bytes) return VV_E_CORRUPT;
        next = l->last + 1;
        bytes += l->bytes;
    }
    return !f->link_count || (next == f->key.last + 1 && bytes == f->data_bytes) ? VV_OK : VV_E_CORRUPT;
}

static int check_meaning(struct vv_footer *f)
{
    const struct vv_blocks *b = &f->blocks;
    f->data_bytes = b->bytes;
    if (f->flags ? check_stored(f) : f->data_bytes != f->stored_bytes) return VV_E_CORRUPT;
    if (b->count && (b->v[0].first_offset < f->key.base || b->v[b->count - 1].first_offset > f->key.last)) return VV_E_CORRUPT;
    return check_links(f);
}

int vv_footer_decode(const uint8_t *p, size_t n, uint64_t object_bytes, struct vv_keyring *keys, struct vv_footer *out,
                     size_t *need, struct vv_error *e)
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
    if (version != VV_FOOTER_VERSION || flags & ~VV_OBJECT_FLAGS)
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
    struct vv_error why = {0};
    struct decoder d = {.f = out, .keys = keys, .footer = t - len, .e = &why};
    out->version = version;
    out->flags = flags;
    out->stored_bytes = data;
    int err = get_footer(&d, t - len, len);
    if (!err) err = check_meaning(out);
    if (err) {
        vv_footer_release(out);
        return vv_error_set(e, err, "%s", why.text[0] ? why.text : "the footer's content makes no sense");
    }
    return VV_OK;
}

/* ---- blocks in the object ---- */

void vv_footer_range(const struct vv_footer *f, uint32_t first, uint32_t count, uint64_t *at, size_t *n)
{
    const struct vv_block *a = &f->blocks.v[first], *b = &f->blocks.v[first + count - 1];
    *at = f->stored ? f->stored[first].at : a->at;
    uint64_t end = f->stored ? f->stored[first + count - 1].at + f->stored[first + count - 1].n : b->at + b->n;
    *n = (size_t)(end - *at);
}

struct vv_blockcodec *vv_footer_codec(const struct vv_footer *f)
{
    char name[VV_KEY_MAX];
    vv_segkey_format(&f->key, name);
    return vv_blockcodec_new(f->flags, f->sealing ? f->sealing->data_key : NULL, name);
}

int vv_footer_load(const struct vv_footer *f, struct vv_blockcodec *c, uint32_t i, const uint8_t *p, uint8_t *dst)
{
    const struct vv_block *b = &f->blocks.v[i];
    int err = VV_OK;
    if (!f->flags) memcpy(dst, p, b->n);
    else err = vv_block_load(c, i, f->stored[i].how, p, f->stored[i].n, dst, b->n);
    return !err && vv_crc32c(0, dst, b->n) != b->crc ? VV_E_CORRUPT : err;
}

void vv_footer_release(struct vv_footer *f)
{
    free(f->topic);
    free(f->cluster_id);
    free(f->epochs);
    free(f->aborted);
    free(f->snapshot);
    free(f->links);
    free(f->stored);
    if (f->sealing) OPENSSL_cleanse(f->sealing, sizeof *f->sealing);
    free(f->sealing);
    vv_blocks_release(&f->blocks);
    *f = (struct vv_footer){0};
}

static bool one_of(const char *id, const char *list)
{
    size_t n = strlen(id);
    for (const char *p = list;; p++) {
        size_t have = strcspn(p, ",");
        if (have == n && !strncmp(p, id, n)) return true;
        p += have;
        if (!*p) return false;
    }
}

int vv_footer_check(const struct vv_footer *f, const struct vv_segkey *key, const char *clusters, struct vv_error *e)
{
    char want[VV_KEY_MAX], have[VV_KEY_MAX];
    vv_segkey_format(key, want);
    vv_segkey_format(&f->key, have);
    if (strcmp(want, have)) return vv_error_set(e, VV_E_CORRUPT, "object %s holds the bytes of %s", want, have);
    if (clusters && !one_of(f->cluster_id, clusters))
        return vv_error_set(e, VV_E_CORRUPT, "object %s belongs to cluster %s, not to %s", want, f->cluster_id, clusters);
    return VV_OK;
}

void vv_segkey_of(struct vv_uuid topic_id, int32_t partition, const struct vv_extent *x, struct vv_segkey *out)
{
    *out = (struct vv_segkey){topic_id, partition, x->base, x->last, x->epoch, x->generation, x->nonce};
}

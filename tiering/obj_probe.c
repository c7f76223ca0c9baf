/* obj_probe.c — finds out what a store really honours. Contract: varve/objstore.h.
 *
 * A server may ignore If-None-Match or If-Match and answer 200, or not check Content-MD5: only
 * trying tells. Each question is a few requests on tiny objects with a random name; the objects are
 * removed. What is asked: both conditions, each in the case where it must refuse and where it must
 * not; if the ETag is the MD5; if a body that is not what its checksum says is refused (the source
 * gives other bytes the second time it is read); bulk delete. Multipart is not tried (parts of 5 MiB
 * are no probe). Pure use of the public calls; blocks; any thread. */
#include "varve/objstore.h"
#include "varve/bytes.h"

#include <stdio.h>
#include <string.h>

struct probe {
    struct vv_objstore *s;
    const char *prefix;
    int64_t deadline_ms;
    uint64_t nonce;
    char keys[2][VV_OBJ_KEY_MAX];
    char etag[VV_OBJ_ETAG_MAX];
};

static int put(struct probe *p, int i, const char *text, const struct vv_objput *how,
               struct vv_objinfo *info, struct vv_error *e)
{
    return vv_objstore_put_mem(p->s, p->keys[i], text, strlen(text), how, p->deadline_ms, info, e);
}

/* Refused where it must be; anything but success and conflict (501, 400 …) also means: not here. */
static bool none_match_works(struct probe *p)
{
    struct vv_objput absent = {.if_none_match = true};
    return put(p, 1, "first", &absent, NULL, NULL) == VV_OK &&
           put(p, 1, "second", &absent, NULL, NULL) == VV_E_CONFLICT;
}

static bool match_works(struct probe *p)
{
    struct vv_objput wrong = {.if_match = "\"00000000000000000000000000000000\""},
                     right = {.if_match = p->etag};
    return p->etag[0] && put(p, 0, "other", &wrong, NULL, NULL) == VV_E_CONFLICT &&
           put(p, 0, "other", &right, NULL, NULL) == VV_OK;
}

/* The backend reads a source once for the checksums and once more to send it; a third time would be a retry. */
static int fickle_read(void *ctx, uint64_t at, void *dst, size_t n)
{
    unsigned *reads = ctx;
    (void)at;
    memset(dst, (*reads)++ ? 'b' : 'a', n);
    return *reads > 2 ? VV_E_UNSUPPORTED : VV_OK;
}

static bool checked_put_works(struct probe *p)
{
    unsigned reads = 0;
    struct vv_objsrc src = {.size = 16, .read = fickle_read, .ctx = &reads};
    int err = vv_objstore_put(p->s, p->keys[0], &src, NULL, p->deadline_ms, NULL, NULL);
    return err != VV_OK && reads > 1;
}

int vv_objstore_probe(struct vv_objstore *s, const char *prefix, int64_t deadline_ms,
                      unsigned *caps, struct vv_error *e)
{
    struct probe p = {.s = s, .prefix = prefix, .deadline_ms = deadline_ms};
    struct vv_objinfo info;
    *caps = s->caps;
    vv_random(s->env, &p.nonce, sizeof p.nonce);
    for (int i = 0; i < 2; i++)
        snprintf(p.keys[i], sizeof p.keys[i], "%sprobe-%016llx-%d", prefix,
                 (unsigned long long)p.nonce, i);
    int err = put(&p, 0, "probe", NULL, &info, e); /* the store is there and lets us write */
    if (err) return err;
    if (!info.etag[0]) err = vv_objstore_head(s, p.keys[0], deadline_ms, &info, e);
    if (err) return err;
    memcpy(p.etag, info.etag, sizeof p.etag);
    if (strcmp(info.etag, "\"8da843ff65205a61374b09b81ed0fa35\""))
        *caps &= ~(unsigned)VV_OBJ_CAP_ETAG_IS_MD5;
    if ((*caps & VV_OBJ_CAP_IF_NONE_MATCH) && !none_match_works(&p))
        *caps &= ~(unsigned)VV_OBJ_CAP_IF_NONE_MATCH;
    if ((*caps & VV_OBJ_CAP_IF_MATCH) && !match_works(&p)) *caps &= ~(unsigned)VV_OBJ_CAP_IF_MATCH;
    if ((*caps & VV_OBJ_CAP_CHECKED_PUT) && !checked_put_works(&p)) *caps &= ~(unsigned)VV_OBJ_CAP_CHECKED_PUT;
    const char *keys[2] = {p.keys[0], p.keys[1]};
    int results[2];
    return vv_objstore_delete_many(s, keys, 2, deadline_ms, results, e);
}

/* producer_ids.c — ids for idempotent producers, never handed out twice: blocks of 1,000 are reserved on disk first.
 *
 * varve-producer-ids holds the first id that no block has reserved; after a crash the rest of a block is skipped. On
 * control. */
#include "topics.h"

#include "varve/vlog.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 1000
/* A snapshot in the bucket may be older than the last blocks: what a restored broker skips above it. */
#define RESTORE_MARGIN (1000 * (int64_t)BLOCK)

struct vv_producer_ids {
    char *path;
    int64_t next, reserved;
};

static int load(struct vv_broker *b, struct vv_producer_ids *p, struct vv_error *e)
{
    uint8_t *text = NULL;
    size_t n;
    int err = vv_fs_read_file(b->env, p->path, 4096, &text, &n);
    if (err == VV_E_NOENT) return VV_OK;
    if (err) return vv_error_set(e, err, "cannot read %s: %s", p->path, vv_err_name(err));
    json_int_t reserved = -1;
    json_t *o = json_loadb((const char *)text, n, 0, NULL);
    if (json_unpack(o, "{s:I}", "reserved", &reserved) || reserved < 0)
        err =
            vv_error_set(e, VV_E_CORRUPT,
                         "%s is damaged: write {\"reserved\": N} with an N above every producer id in use", p->path);
    p->next = p->reserved = reserved;
    json_decref(o);
    free(text);
    return err;
}

int vv_producer_ids_open(struct vv_broker *b, struct vv_producer_ids **out, struct vv_error *e)
{
    struct vv_producer_ids *p = calloc(1, sizeof *p);
    if (!p || asprintf(&p->path, "%s/varve-producer-ids", b->log_dir) < 0) {
        free(p);
        return vv_error_set(e, VV_E_NOMEM, "out of memory");
    }
    int err = load(b, p, e);
    if (err)
        vv_producer_ids_close(p);
    else
        *out = p;
    return err;
}

void vv_producer_ids_close(struct vv_producer_ids *p)
{
    if (!p) return;
    free(p->path);
    free(p);
}

static int reserve(struct vv_broker *b, int64_t up_to)
{
    struct vv_producer_ids *p = b->producer_ids;
    char text[64];
    int n = snprintf(text, sizeof text, "{\"reserved\": %lld}\n", (long long)up_to);
    int err = vv_fs_write_file(b->env, p->path, text, (size_t)n);
    if (err)
        VLOG_ERROR("cannot write %s: %s", p->path, vv_err_name(err));
    else
        p->reserved = up_to;
    return err;
}

int vv_producer_id_next(struct vv_broker *b, int64_t *out)
{
    struct vv_producer_ids *p = b->producer_ids;
    vv_reactor_assert_here(b->control);
    if (p->next == p->reserved) {
        int err = reserve(b, p->reserved + BLOCK);
        if (err) return vv_err_kafka(err);
        vv_topics_changed(b);
    }
    *out = p->next++;
    return VV_OK;
}

int64_t vv_producer_ids_reserved(struct vv_broker *b)
{
    return b->producer_ids ? b->producer_ids->reserved : 0;
}

void vv_producer_ids_skip_to(struct vv_broker *b, int64_t id)
{
    struct vv_producer_ids *p = b->producer_ids;
    int64_t to = id + RESTORE_MARGIN;
    if (to <= p->next) return;
    p->next = p->reserved = to; /* durable with the first block; until then nothing was handed out */
    reserve(b, to);
}

/* tiering_manifest_fuzz.c — libFuzzer: any bytes as a manifest page for the quick reader. What it takes for a page must be the same page for
 * the JSON library, where that takes it too.
 *
 * Input: {u8 mode} {text}. Bit 0: references instead of segments; bit 1: the text is the entries alone, the page is put around it. */
#include "manifest_impl.h"
#include "keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same_segments(const struct vv_mf_list *got, const json_t *entries)
{
    struct vv_mf_list want = {0};
    if (vv_mf_segments_parse(entries, &want) || want.n != got->n) abort();
    for (size_t i = 0; i < want.n; i++) {
        const struct vv_extent *a = &got->v[i], *b = &want.v[i];
        if (a->base != b->base || a->last != b->last || a->epoch != b->epoch || a->generation != b->generation || a->nonce != b->nonce ||
            a->bytes != b->bytes || a->object_bytes != b->object_bytes || a->first_ts != b->first_ts || a->max_ts != b->max_ts ||
            a->sealed_ms != b->sealed_ms || a->stored_bytes != b->stored_bytes || a->state != b->state)
            abort();
    }
    free(want.v);
}

static void same_refs(const struct vv_manifest_level *got, const json_t *entries)
{
    size_t i;
    const json_t *o;
    if (json_array_size(entries) != got->n) abort();
    json_array_foreach(entries, i, o) {
        struct vv_pageref b;
        const struct vv_pageref *a = &got->v[i];
        if (vv_mf_ref_parse(o, &b) || a->base != b.base || a->last != b.last || a->max_ts != b.max_ts || a->segments != b.segments ||
            a->bytes != b.bytes || strcmp(a->sha256, b.sha256))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] = "{\"format\":1,\"topic_id\":\"AAAAAAAAAAAAAAAAAAAAAA\",\"partition\":0,\"entries\":";
    struct vv_manifest_where w = {.partition = 0};
    struct vv_mf_list segments = {0};
    struct vv_manifest_level refs = {0};
    if (!size) return 0;
    int level = data[0] & 1 ? 2 : 1;
    size_t before = data[0] & 2 ? sizeof head - 1 : 0, n = before + size - 1 + (before != 0);
    char *text = malloc(n + !n);
    if (!text) abort();
    memcpy(text, head, before);
    memcpy(text + before, data + 1, size - 1);
    if (before) text[n - 1] = '}';
    int err = vv_mf_scan(&w, level, text, n, &segments, &refs);
    json_t *o = err ? NULL : json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL);
    if (o && level == 1) same_segments(&segments, json_object_get(o, "entries"));
    if (o && level == 2) same_refs(&refs, json_object_get(o, "entries"));
    json_decref(o);
    free(segments.v);
    free(refs.v);
    free(text);
    return 0;
}

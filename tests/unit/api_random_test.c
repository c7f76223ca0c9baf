/* Every API in every version with messages made by chance, and the same with damaged bytes: the broker answers or
 * closes, and goes on serving others. */
#include "api_rig.h"

enum { SEEDS = 6 };

static void still_serves(void)
{
    struct peer *p = peer_new();
    struct ApiVersionsRequest q;
    VV_MSG_INIT(ApiVersionsRequest, &q);
    const struct ApiVersionsResponse *r = peer_call(p, API_VERSIONS, 0, &q);
    assert_int_equal(r->ErrorCode, 0);
    peer_free(p);
}

static size_t frame_of(const struct vv_api *api, int16_t version, const void *request, uint8_t **frame)
{
    struct vv_out out;
    struct vv_chain body = {0};
    struct vv_request_header h = {
        .key = api->key, .version = version, .correlation_id = 1, .client_id = VV_STR_LIT("r")};
    vv_out_init(&out);
    assert_int_equal(vv_request_header_encode(&h, &out), 0);
    assert_int_equal(vv_msg_encode(api->request, version, request, &out), 0);
    assert_int_equal(vv_out_finish(&out, &body), 0);
    size_t n = 4 + body.bytes;
    *frame = malloc(n);
    vv_put32(*frame, (uint32_t)body.bytes);
    vv_chain_copy_out(&body, *frame + 4);
    vv_chain_release(&body);
    return n;
}

/* Sends and leaves; the broker may close first, so a failed write is fine. */
static void throw_at_it(const uint8_t *frame, size_t n)
{
    struct peer *p = peer_new();
    ssize_t sent = send(p->fd, frame, n, MSG_NOSIGNAL);
    (void)sent;
    shutdown(p->fd, SHUT_WR);
    peer_free(p);
}

static void by_chance(void **state)
{
    (void)state;
    struct vv_arena arena;
    vv_arena_init(&arena, 0);
    for (size_t i = 0; i < vv_apis_count; i++) {
        const struct vv_api *api = &vv_apis[i];
        for (int16_t v = api->request->min; v <= api->request->max; v++)
            for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                vv_arena_reset(&arena);
                void *request = vv_arena_alloc(&arena, api->request->root->size);
                assert_int_equal(vv_msg_random(api->request, v, seed * 1000 + (uint64_t)v, &arena, request), 0);
                uint8_t *frame = NULL;
                size_t n = frame_of(api, v, request, &frame);
                throw_at_it(frame, n);
                uint64_t chance = seed * 0x9E3779B97F4A7C15u + (uint64_t)v;
                for (int k = 0; k < 3; k++, chance = chance * 6364136223846793005u + 1)
                    frame[12 + (chance >> 33) % (n - 12)] = (uint8_t)(chance >> 24);
                throw_at_it(frame, n);
                free(frame);
            }
        still_serves();
    }
    vv_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(by_chance)};
    return cmocka_run_group_tests(tests, rig_start, rig_stop);
}

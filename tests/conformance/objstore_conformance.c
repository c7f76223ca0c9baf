/* objstore_conformance.c — runs the object-store suite against one store.
 *
 *     objstore_conformance [--fault] [--quick] [--only NAME] [--client curl|libs3] [--make-bucket]
 * URL
 *
 * The rest of an S3 store's configuration comes from the AWS environment (AWS_ENDPOINT_URL_S3,
 * keys, region). What the server really does is probed first and printed; tests of what it lacks
 * are named as skipped. Exit: 0 all passed, 1 some failed, 2 usage or the store is away. */
#include "conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    unsigned cap;
    const char *name;
} cap_names[] = {
    {VV_OBJ_CAP_IF_NONE_MATCH, "if-none-match"}, {VV_OBJ_CAP_IF_MATCH, "if-match"},
    {VV_OBJ_CAP_MULTIPART, "multipart"},         {VV_OBJ_CAP_BULK_DELETE, "bulk-delete"},
    {VV_OBJ_CAP_ETAG_IS_MD5, "etag-is-md5"},     {VV_OBJ_CAP_CHECKED_PUT, "checked-put"},
};

static void print_caps(const char *what, unsigned caps)
{
    printf("%s:", what);
    for (size_t i = 0; i < sizeof cap_names / sizeof *cap_names; i++)
        if (caps & cap_names[i].cap) printf(" %s", cap_names[i].name);
    printf("\n");
}

int main(int argc, char **argv)
{
    struct vv_objstore_config config = {.multipart_above = 16 << 20, .part_size = 5 << 20};
    struct conformance_options options = {.many = true, .big = true};
    struct vv_objstore *store;
    struct vv_error e = {0};
    const char *url = NULL;
    bool fault = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--fault"))
            fault = true;
        else if (!strcmp(argv[i], "--quick"))
            options.many = options.big = false;
        else if (!strcmp(argv[i], "--only") && i + 1 < argc)
            options.only = argv[++i];
        else if (!strcmp(argv[i], "--client") && i + 1 < argc)
            config.client = argv[++i];
        else if (argv[i][0] != '-' && !url)
            url = argv[i];
        else
            url = NULL, i = argc;
    }
    if (!url) {
        fprintf(stderr, "usage: objstore_conformance [--fault] [--quick] [--only NAME] [--client "
                        "curl|libs3] URL\n");
        return 2;
    }
    int err = vv_objstore_open(url, &config, &vv_env_posix, &store, &e);
    if (!err && fault) {
        struct vv_objstore *inner = store;
        err = vv_objfault_open(inner, 1, &store);
        if (err) vv_objstore_close(inner);
    }
    if (err) {
        fprintf(stderr, "%s\n", e.text);
        return 2;
    }
    uint64_t id;
    char root[64];
    vv_random(&vv_env_posix, &id, sizeof id);
    snprintf(root, sizeof root, "conf-%08llx/", (unsigned long long)(id & 0xffffffff));
    err = vv_objstore_probe(store, root, 30000, &options.caps, &e);
    if (err) {
        fprintf(stderr, "%s\n", e.text);
        vv_objstore_close(store);
        return 2;
    }
    print_caps("client can", store->caps);
    print_caps("store does", options.caps);
    int failed = conformance_run(store, root, &options);
    printf("%d failed; HTTP requests: put %llu get %llu+%llu list %llu delete %llu+%llu, retries "
           "of puts %llu\n",
           failed, (unsigned long long)store->stats.requests[VV_OBJ_PUT],
           (unsigned long long)store->stats.requests[VV_OBJ_GET],
           (unsigned long long)store->stats.requests[VV_OBJ_GET_ASYNC],
           (unsigned long long)store->stats.requests[VV_OBJ_LIST],
           (unsigned long long)store->stats.requests[VV_OBJ_DELETE],
           (unsigned long long)store->stats.requests[VV_OBJ_DELETE_MANY],
           (unsigned long long)store->stats.retries[VV_OBJ_PUT]);
    vv_objstore_close(store);
    return failed ? 1 : 0;
}

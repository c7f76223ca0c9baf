/* Compressed and encrypted objects: vectors, round trips, and whatever a store or an enemy could change of them; keyring files. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "footer.h"

#define OBJECT "v1/t/AQEBAQEBAQEBAQEBAQEBAQ/00003/x.seg"
#define OLD_KEY "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define NEW_KEY "//79/Pv6+fj39vX08/Lx8O/u7ezr6uno5+bl5OPi4eA="

static char path[64], dir[64];

static void write_keys(const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static struct vv_keyring *open_keys(const char *text, const char *active)
{
    struct vv_keyring *k;
    struct vv_error e = {0};
    write_keys(text, 0600);
    if (vv_keyring_open(&vv_env_posix, path, active, &k, &e)) fail_msg("%s", e.text);
    return k;
}

static void hex(const char *text, uint8_t *p)
{
    for (unsigned byte; *text; text += 2) {
        assert_int_equal(sscanf(text, "%2x", &byte), 1);
        *p++ = (uint8_t)byte;
    }
}

/* Test case 16 of the GCM specification. */
static void gcm_vector(void **state)
{
    (void)state;
    uint8_t key[32], nonce[12], aad[20], plain[60], sealed[76], out[76];
    hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", key);
    hex("cafebabefacedbaddecaf888", nonce);
    hex("feedfacedeadbeeffeedfacedeadbeefabaddad2", aad);
    hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        plain);
    hex("522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b", sealed);
    assert_int_equal(vv_seal(key, nonce, aad, sizeof aad, plain, sizeof plain, out), 0);
    assert_memory_equal(out, sealed, sizeof sealed);
    assert_int_equal(vv_unseal(key, nonce, aad, sizeof aad, sealed, sizeof sealed, out), 0);
    assert_memory_equal(out, plain, sizeof plain);
    sealed[75] ^= 1;
    assert_int_equal(vv_unseal(key, nonce, aad, sizeof aad, sealed, sizeof sealed, out), VV_E_CORRUPT);
}

/* ---- blocks ---- */

enum { BLOCK = 65536 };
static const uint8_t data_key[32] = {1, 2, 3};

static void fill(uint8_t *p, size_t n, bool noise)
{
    uint32_t x = 12345;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        p[i] = noise ? (uint8_t)(x >> 24) : (uint8_t)("flight delayed "[i % 15]);
    }
}

static void blocks_come_back(void **state)
{
    (void)state;
    static uint8_t plain[BLOCK], stored[BLOCK + 16], again[BLOCK + 16], back[BLOCK];
    static const size_t sizes[] = {1, 2, 15, 4096, BLOCK};
    for (unsigned flags = 1; flags <= VV_OBJECT_FLAGS; flags++)
        for (int noise = 0; noise < 2; noise++)
            for (size_t s = 0; s < VV_COUNT(sizes); s++) {
                size_t n = sizes[s];
                uint32_t got, how, got2, how2;
                struct vv_blockcodec *c = vv_blockcodec_new(flags, data_key, OBJECT), *d = vv_blockcodec_new(flags, data_key, OBJECT);
                fill(plain, n, noise);
                assert_int_equal(vv_block_store(c, 7, plain, n, stored, &got, &how), 0);
                assert_int_equal(vv_block_store(d, 7, plain, n, again, &got2, &how2), 0); /* always the same */
                assert_int_equal(got, got2);
                assert_memory_equal(stored, again, got);
                assert_true(got <= vv_block_stored_max(c, n));
                if (how == VV_STORED_PLAIN) assert_int_equal(got, vv_block_stored_max(c, n));
                else assert_true(flags & VV_OBJECT_COMPRESSED && got < vv_block_stored_max(c, n));
                if (n >= 4096) assert_int_equal(how == VV_STORED_ZSTD, !noise && flags & VV_OBJECT_COMPRESSED);
                assert_int_equal(vv_block_load(d, 7, how, stored, got, back, n), 0);
                assert_memory_equal(back, plain, n);
                vv_blockcodec_free(c);
                vv_blockcodec_free(d);
            }
}

static int load_as(unsigned flags, const uint8_t *key, const char *object, uint32_t number, uint32_t how, const uint8_t *p, size_t n,
                   uint8_t *dst, size_t dst_n)
{
    struct vv_blockcodec *c = vv_blockcodec_new(flags, key, object);
    int err = vv_block_load(c, number, how, p, n, dst, dst_n);
    vv_blockcodec_free(c);
    return err;
}

static void a_changed_block_does_not_open(void **state)
{
    (void)state;
    static uint8_t plain[4096], stored[4112], back[8192];
    uint8_t other[32] = {9};
    uint32_t n, how;
    struct vv_blockcodec *c = vv_blockcodec_new(VV_OBJECT_FLAGS, data_key, OBJECT);
    fill(plain, sizeof plain, false);
    assert_int_equal(vv_block_store(c, 7, plain, sizeof plain, stored, &n, &how), 0);
    assert_int_equal(how, VV_STORED_ZSTD);
    vv_blockcodec_free(c);
    const unsigned f = VV_OBJECT_FLAGS;
    assert_int_equal(load_as(f, data_key, OBJECT, 7, how, stored, n, back, sizeof plain), 0);
    assert_int_equal(load_as(f, other, OBJECT, 7, how, stored, n, back, sizeof plain), VV_E_CORRUPT);          /* another key */
    assert_int_equal(load_as(f, data_key, OBJECT "2", 7, how, stored, n, back, sizeof plain), VV_E_CORRUPT);   /* another object */
    assert_int_equal(load_as(f, data_key, OBJECT, 8, how, stored, n, back, sizeof plain), VV_E_CORRUPT);       /* another place */
    assert_int_equal(load_as(f, data_key, OBJECT, 7, how, stored, n, back, sizeof plain + 1), VV_E_CORRUPT);   /* another length */
    assert_int_equal(load_as(f, data_key, OBJECT, 7, how, stored, n, back, sizeof plain - 1), VV_E_CORRUPT);
    assert_int_equal(load_as(f, data_key, OBJECT, 7, VV_STORED_PLAIN, stored, n, back, sizeof plain), VV_E_CORRUPT);
    assert_int_equal(load_as(f, data_key, OBJECT, 7, 2, stored, n, back, sizeof plain), VV_E_CORRUPT);
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(load_as(f, data_key, OBJECT, 7, how, stored, cut, back, sizeof plain), VV_E_CORRUPT);
    for (size_t i = 0; i < n * 8; i++) {
        stored[i / 8] ^= (uint8_t)(1 << (i % 8));
        assert_int_equal(load_as(f, data_key, OBJECT, 7, how, stored, n, back, sizeof plain), VV_E_CORRUPT);
        stored[i / 8] ^= (uint8_t)(1 << (i % 8));
    }
}

/* The smallest that zstd can make of a block is believed. */
static void the_best_of_cases_fits(void **state)
{
    (void)state;
    const size_t n = 16u << 20;
    uint8_t *plain = calloc(1, n), *stored = malloc(n + 16), *back = malloc(n);
    uint32_t got, how;
    struct vv_blockcodec *c = vv_blockcodec_new(VV_OBJECT_COMPRESSED, data_key, OBJECT);
    for (size_t some = 4096; some <= n; some *= 4) {
        assert_int_equal(vv_block_store(c, 0, plain, some, stored, &got, &how), 0);
        assert_int_equal(how, VV_STORED_ZSTD);
        assert_true(vv_block_may_unpack(got, some));
        assert_int_equal(vv_block_load(c, 0, how, stored, got, back, some), 0);
        assert_memory_equal(back, plain, some);
    }
    vv_blockcodec_free(c);
    free(plain);
    free(stored);
    free(back);
}

/* ---- footers ---- */

static uint8_t data[70000], object[80000];

/* An object of two blocks in `object`: returns its size and its footer's. */
static size_t make_object(unsigned flags, struct vv_keyring *keys, struct vv_footer *f, size_t *footer_n)
{
    struct vv_error e = {0};
    uint8_t *p;
    fill(data, sizeof data, false);
    *f = (struct vv_footer){.flags = (uint16_t)flags, .data_bytes = sizeof data, .records = 150, .writer_epoch = 12, .max_ts = 900,
                            .key = {.partition = 3, .base = 100, .last = 299, .epoch = 7, .nonce = 0xabcdef},
                            .topic = strdup("flights"), .cluster_id = strdup("c1")};
    assert_int_equal(vv_blocks_append(&f->blocks, data, 65536, 100, 5, 100, 100), 0);
    assert_int_equal(vv_blocks_append(&f->blocks, data + 65536, 4464, 200, 50, 900, 50), 0);
    f->epochs = calloc(1, sizeof *f->epochs);
    f->epoch_count = 1;
    f->snapshot = (uint8_t *)strdup("producers");
    f->snapshot_n = 9;
    f->stored = calloc(2, sizeof *f->stored);
    if (flags & VV_OBJECT_ENCRYPTED && vv_footer_make_key(f, keys, &vv_env_posix, &e)) fail_msg("%s", e.text);
    struct vv_blockcodec *c = vv_footer_codec(f);
    for (uint32_t i = 0; i < 2; i++) {
        struct vv_stored *x = &f->stored[i];
        x->at = f->stored_bytes;
        assert_int_equal(vv_block_store(c, i, data + f->blocks.v[i].at, f->blocks.v[i].n, object + x->at, &x->n, &x->how), 0);
        f->stored_bytes += x->n;
    }
    vv_blockcodec_free(c);
    assert_int_equal(vv_footer_encode(f, &p, footer_n), 0);
    memcpy(object + f->stored_bytes, p, *footer_n);
    free(p);
    return f->stored_bytes + *footer_n;
}

static int decode(size_t n, size_t footer_n, struct vv_keyring *keys, struct vv_footer *f, struct vv_error *e)
{
    return vv_footer_decode(object + n - footer_n, footer_n, n, keys, f, NULL, e);
}

static bool holds(const uint8_t *p, size_t n, const char *text)
{
    return memmem(p, n, text, strlen(text));
}

static void objects_come_back(void **state)
{
    (void)state;
    struct vv_keyring *keys = open_keys("# of the archive\n\nold " OLD_KEY "\nnew " NEW_KEY "\n", NULL);
    for (unsigned flags = 1; flags <= VV_OBJECT_FLAGS; flags++) {
        struct vv_footer f, g;
        struct vv_error e = {0};
        size_t footer_n, n = make_object(flags, keys, &f, &footer_n), range;
        uint8_t back[65536];
        uint64_t at;
        if (decode(n, footer_n, keys, &g, &e)) fail_msg("%s", e.text);
        assert_int_equal(vv_footer_check(&g, &f.key, "c1", &e), 0);
        assert_int_equal(g.data_bytes, sizeof data);
        assert_int_equal(g.stored_bytes, n - footer_n);
        assert_memory_equal(g.snapshot, "producers", 9);
        bool encrypted = flags & VV_OBJECT_ENCRYPTED;
        assert_int_equal(holds(object, n, "producers"), !encrypted); /* what tells of the records does not show */
        assert_int_equal(holds(object, n, "delayed flight"), false);
        if (encrypted) assert_string_equal(g.sealing->key_id, "new");
        struct vv_blockcodec *c = vv_footer_codec(&g);
        for (uint32_t i = 0; i < 2; i++) {
            vv_footer_range(&g, i, 1, &at, &range);
            assert_int_equal(vv_footer_load(&g, c, i, object + at, back), 0);
            assert_memory_equal(back, data + g.blocks.v[i].at, g.blocks.v[i].n);
        }
        vv_footer_range(&g, 0, 2, &at, &range);
        assert_int_equal(at, 0);
        assert_int_equal(range, n - footer_n);
        vv_footer_range(&g, 0, 1, &at, &range); /* the first block in the second's place */
        assert_int_not_equal(vv_footer_load(&g, c, 1, object, back), 0);
        vv_blockcodec_free(c);
        vv_footer_release(&g);
        vv_footer_release(&f);
    }
    vv_keyring_free(keys);
}

/* Checksums put right again: an enemy's work, not the disk's. */
static void forge(uint8_t *footer, size_t footer_n)
{
    uint8_t *t = footer + footer_n - VV_TRAILER_BYTES;
    vv_put32(t + 12, vv_crc32c(0, footer, footer_n - VV_TRAILER_BYTES));
    vv_put32(t + 28, vv_crc32c(0, t, 28));
}

static void every_forged_bit_of_an_encrypted_footer_is_found(void **state)
{
    (void)state;
    struct vv_keyring *keys = open_keys("old " OLD_KEY "\n", NULL);
    struct vv_footer f, g;
    struct vv_error e = {0};
    size_t footer_n, n = make_object(VV_OBJECT_FLAGS, keys, &f, &footer_n);
    uint8_t *footer = object + n - footer_n, *good = malloc(footer_n);
    memcpy(good, footer, footer_n);
    for (size_t i = 0; i < footer_n * 8; i++) {
        size_t byte = i / 8, trailer = footer_n - VV_TRAILER_BYTES;
        if (byte >= trailer + 28 || (byte >= trailer + 12 && byte < trailer + 16)) continue; /* the checksums themselves */
        memcpy(footer, good, footer_n);
        footer[byte] ^= (uint8_t)(1 << (i % 8));
        forge(footer, footer_n);
        int err = decode(n, footer_n, keys, &g, &e);
        if (err != VV_E_CORRUPT && err != VV_E_KEY && err != VV_E_UNSUPPORTED) fail_msg("byte %zu, bit %zu: %d", byte, i % 8, err);
    }
    vv_footer_release(&f);
    free(good);
    vv_keyring_free(keys);
}

/* Checksums and all: a footer that declares more than its bytes can hold costs its reader nothing. */
static void declared_sizes_are_bounded(void **state)
{
    (void)state;
    static const struct { uint32_t n, stored; int want; } cases[] = {
        {UINT32_MAX, 20, VV_E_CORRUPT},
        {UINT32_MAX, 1u << 30, VV_E_CORRUPT},
        {VV_PACKED_MAX + 1, 1u << 20, VV_E_CORRUPT},
        {VV_PACKED_MAX, 4096, 0},
        {VV_PACKED_MAX, 4095, VV_E_CORRUPT},
        {1u << 20, 31, VV_E_CORRUPT},
        {65536, 20, 0},
    };
    for (size_t i = 0; i < VV_COUNT(cases); i++) {
        struct vv_footer f = {.flags = VV_OBJECT_COMPRESSED, .topic = strdup("flights"), .cluster_id = strdup("c1"), .key = {.last = 9}}, g;
        struct vv_error e = {0};
        uint8_t *p;
        size_t n;
        f.data_bytes = cases[i].n;
        f.stored_bytes = cases[i].stored;
        f.stored = calloc(1, sizeof *f.stored);
        *f.stored = (struct vv_stored){0, cases[i].stored, VV_STORED_ZSTD};
        assert_int_equal(vv_blocks_append(&f.blocks, data, 1, 0, 0, 0, 1), 0);
        f.blocks.v[0].n = cases[i].n;
        f.blocks.bytes = cases[i].n;
        assert_int_equal(vv_footer_encode(&f, &p, &n), 0);
        assert_int_equal(vv_footer_decode(p, n, f.stored_bytes + n, NULL, &g, NULL, &e), cases[i].want);
        vv_footer_release(&g);
        vv_footer_release(&f);
        free(p);
    }
}

/* A batch beyond the bound is stored as it is, and comes back. */
static void a_giant_is_not_compressed(void **state)
{
    (void)state;
    const size_t n = VV_PACKED_MAX + 1;
    uint8_t *plain = calloc(1, n), *stored = malloc(n + 16);
    uint32_t got, how;
    struct vv_blockcodec *c = vv_blockcodec_new(VV_OBJECT_COMPRESSED, data_key, OBJECT);
    assert_int_equal(vv_block_store(c, 0, plain, n, stored, &got, &how), 0);
    assert_int_equal(how, VV_STORED_PLAIN);
    assert_int_equal(got, n);
    vv_blockcodec_free(c);
    free(plain);
    free(stored);
}

/* The enemy's other trade: whole parts of one object put into another. */
static void parts_of_other_objects_do_not_fit(void **state)
{
    (void)state;
    struct vv_keyring *keys = open_keys("old " OLD_KEY "\n", NULL);
    struct vv_footer f, g;
    struct vv_error e = {0};
    struct vv_segkey elsewhere;
    size_t footer_n, n = make_object(VV_OBJECT_ENCRYPTED, keys, &f, &footer_n);
    uint8_t *footer = object + n - footer_n, *first = malloc(footer_n), back[65536];
    memcpy(first, footer, footer_n);
    assert_int_equal(decode(n, footer_n, keys, &g, &e), 0);
    elsewhere = g.key;
    elsewhere.base++;
    assert_int_equal(vv_footer_check(&g, &elsewhere, "c1", &e), VV_E_CORRUPT); /* under another name */
    vv_footer_release(&f);
    n = make_object(VV_OBJECT_ENCRYPTED, keys, &f, &footer_n); /* same name and content, another data key */
    struct vv_blockcodec *c = vv_footer_codec(&g);
    assert_int_equal(vv_footer_load(&g, c, 0, object, back), VV_E_CORRUPT);
    vv_blockcodec_free(c);
    vv_footer_release(&g);
    uint8_t *key = memmem(footer, footer_n, "ENCR", 4), *other = memmem(first, footer_n, "ENCR", 4);
    memcpy(key, other, 8 + vv_get32(other + 4));
    forge(footer, footer_n);
    assert_int_equal(decode(n, footer_n, keys, &g, &e), VV_E_CORRUPT);
    vv_put16(footer + footer_n - VV_TRAILER_BYTES + 26, 4);
    forge(footer, footer_n);
    assert_int_equal(decode(n, footer_n, keys, &g, &e), VV_E_UNSUPPORTED);
    free(first);
    vv_footer_release(&f);
    vv_keyring_free(keys);
}

/* ---- keys ---- */

static void a_missing_or_wrong_key_is_named(void **state)
{
    (void)state;
    struct vv_keyring *keys = open_keys("old " OLD_KEY "\n", NULL);
    struct vv_footer f, g;
    struct vv_error e = {0};
    size_t footer_n, n = make_object(VV_OBJECT_ENCRYPTED, keys, &f, &footer_n);
    assert_int_equal(decode(n, footer_n, NULL, &g, &e), VV_E_KEY);
    assert_non_null(strstr(e.text, "key old"));
    vv_keyring_free(keys);
    keys = open_keys("new " NEW_KEY "\n", NULL);
    assert_int_equal(decode(n, footer_n, keys, &g, &e), VV_E_KEY);
    assert_non_null(strstr(e.text, "key old"));
    write_keys("new " NEW_KEY "\nold " NEW_KEY "\n", 0600); /* read again by itself */
    assert_int_equal(decode(n, footer_n, keys, &g, &e), VV_E_KEY);
    assert_non_null(strstr(e.text, "called old"));
    assert_null(strstr(e.text, NEW_KEY));
    vv_keyring_free(keys);
    keys = open_keys("new " NEW_KEY "\n", NULL);
    write_keys("old " OLD_KEY "\nnewest " NEW_KEY "\n", 0600);
    assert_int_equal(decode(n, footer_n, keys, &g, &e), 0);
    vv_footer_release(&g);
    vv_footer_release(&f);
    vv_keyring_free(keys);
}

static void rotation(void **state)
{
    (void)state;
    struct vv_keyring *keys = open_keys("old " OLD_KEY "\n", NULL);
    struct vv_error e = {0};
    char id[VV_KEY_ID_MAX];
    uint8_t key[32];
    assert_int_equal(vv_keyring_active(keys, id, key, &e), 0);
    assert_string_equal(id, "old");
    write_keys("old " OLD_KEY "\nnew " NEW_KEY "\n", 0600);
    assert_int_equal(vv_keyring_active(keys, id, key, &e), 0);
    assert_string_equal(id, "new");
    assert_int_equal(key[0], 0xff);
    write_keys("nonsense\n", 0600); /* the keys that were read stay */
    assert_int_equal(vv_keyring_active(keys, id, key, &e), 0);
    assert_string_equal(id, "new");
    vv_keyring_free(keys);
    keys = open_keys("old " OLD_KEY "\nnew " NEW_KEY "\n", "old");
    assert_int_equal(vv_keyring_active(keys, id, key, &e), 0);
    assert_string_equal(id, "old");
    vv_keyring_free(keys);
}

static void refused_files(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "# nothing\n", "old\n", "old AAECAwQ=\n", "o/d " OLD_KEY "\n", "old " OLD_KEY "=\n",
                                      "old " OLD_KEY "\nold " NEW_KEY "\n", "old " OLD_KEY " more\n"};
    struct vv_keyring *k;
    struct vv_error e = {0};
    for (size_t i = 0; i < VV_COUNT(bad); i++) {
        write_keys(bad[i], 0600);
        assert_int_equal(vv_keyring_open(&vv_env_posix, path, NULL, &k, &e), VV_E_CONFIG);
        assert_null(strstr(e.text, "AAEC"));
    }
    write_keys("old " OLD_KEY "\n", 0604);
    assert_int_equal(vv_keyring_open(&vv_env_posix, path, NULL, &k, &e), VV_E_CONFIG);
    assert_non_null(strstr(e.text, "chmod"));
    write_keys("old " OLD_KEY "\n", 0640);
    assert_int_equal(vv_keyring_open(&vv_env_posix, path, "other", &k, &e), VV_E_CONFIG);
    assert_int_equal(vv_keyring_open(&vv_env_posix, "/nowhere/keys", NULL, &k, &e), VV_E_NOENT);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/varve-keys-XXXXXX");
    if (!mkdtemp(dir)) return 1;
    snprintf(path, sizeof path, "%.40s/keys", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gcm_vector),
        cmocka_unit_test(blocks_come_back),
        cmocka_unit_test(a_changed_block_does_not_open),
        cmocka_unit_test(the_best_of_cases_fits),
        cmocka_unit_test(a_giant_is_not_compressed),
        cmocka_unit_test(declared_sizes_are_bounded),
        cmocka_unit_test(objects_come_back),
        cmocka_unit_test(every_forged_bit_of_an_encrypted_footer_is_found),
        cmocka_unit_test(parts_of_other_objects_do_not_fit),
        cmocka_unit_test(a_missing_or_wrong_key_is_named),
        cmocka_unit_test(rotation),
        cmocka_unit_test(refused_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

/* `varve bench` against a broker: what it says it sent is what the broker has, and what it says it read. */
#include "api_rig.h"
#include "cli.h"

#include <fcntl.h>
#include <jansson.h>

/* Runs "varve bench …" in this process; the JSON it printed, or NULL with *code. */
static json_t *bench(int *code, const char *what, ...)
{
    char address[32], path[] = "/tmp/varve-bench-XXXXXX", *argv[32] = {"varve", "bench"};
    int argc = 2, fd = mkstemp(path), saved = dup(STDOUT_FILENO);
    va_list ap;
    snprintf(address, sizeof address, "127.0.0.1:%d", rig.port);
    argv[argc++] = (char *)(uintptr_t)what;
    if (strcmp(what, "s3")) argv[argc++] = "--bootstrap";
    if (strcmp(what, "s3")) argv[argc++] = address;
    argv[argc++] = "-ojson";
    argv[argc++] = "--no-machine";
    va_start(ap, what);
    for (char *arg; argc < 31 && (arg = va_arg(ap, char *));)
        argv[argc++] = arg;
    va_end(ap);
    assert_true(fd >= 0 && saved >= 0);
    fflush(stdout);
    dup2(fd, STDOUT_FILENO);
    *code = vv_cli_main(argc, argv);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(fd);
    json_t *out = json_load_file(path, 0, NULL);
    unlink(path);
    return out;
}

static double value(json_t *o, const char *section, const char *key)
{
    json_t *row = json_object_get(json_object_get(json_object_get(o, section), key), "value");
    if (!row) fail_msg("no %s / %s", section, key);
    return json_number_value(row);
}

static void produce_then_fetch(void **state)
{
    (void)state;
    int code;
    json_t *sent = bench(&code, "produce", "-t", "load", "--partitions", "3", "--mib", "8", "--record-size", "100",
                         "--batch-bytes",
                         "20000", "-c", "2", NULL);
    assert_int_equal(code, 0);
    double records = value(sent, "result", "records"), mib = value(sent, "result", "batch bytes moved");
    assert_true(records > 70000 && mib > 7.9 && mib <= 8);
    static const char *const connections[] = {"1", "2", "8"};
    /* fewer and more than partitions: whole ones and slices */
    for (size_t i = 0; i < VV_COUNT(connections); i++) {
        json_t *read = bench(&code, "fetch", "-t", "load", "-c", connections[i], "--max-bytes", "300000", NULL);
        assert_int_equal(code, 0);
        assert_true(value(read, "result", "records") == records);
        assert_true(value(read, "result", "batch bytes moved") == mib);
        assert_true(value(read, "result", "offsets missing") == 0);
        json_decref(read);
    }
    json_decref(sent);
}

static void without_answers(void **state)
{
    (void)state;
    int code;
    json_t *sent = bench(&code, "produce", "-t", "silent", "--partitions", "1", "--mib", "1", "--acks", "0", "-c", "1",
                         NULL);
    assert_int_equal(code, 0);
    /* An answer on another connection says nothing about this one: ask until everything is there. */
    double records = value(sent, "result", "records"), seen = -1;
    for (int tries = 0; seen != records && tries < 1000; tries++) {
        json_t *read = bench(&code, "fetch", "-t", "silent", "-c", "1", NULL);
        seen = code ? -1 : value(read, "result", "records");
        json_decref(read);
    }
    assert_true(seen == records);
    json_decref(sent);
}

static void open_loop(void **state)
{
    (void)state;
    int code;
    json_t *out = bench(&code, "latency", "-t", "late", "--partitions", "2", "--rate", "2000", "--record-size", "100",
                        "--batch-bytes",
                        "2000", "--seconds", "1", "-c", "2", NULL);
    assert_int_equal(code, 0);
    double p50 = value(out, "latency", "p50"), p99 = value(out, "latency", "p99"), max = value(out, "latency", "max");
    assert_true(p50 > 0 && p50 <= p99 && p99 <= max);
    double batches = value(out, "latency", "requests counted");
    assert_true(batches >= 100 && batches <= 120);
    /* 2000 records a second, 18 in a batch; by the schedule, not by the clock */
    json_decref(out);
}

static void end_to_end(void **state)
{
    (void)state;
    static const char *const connections[] = {"1", "2", "5"}; /* fewer and more than partitions */
    for (size_t i = 0; i < VV_COUNT(connections); i++) {
        int code;
        json_t *out = bench(&code, "latency", "-t", "round", "--partitions", "3", "--rate", "2000", "--record-size", "100",
                            "--batch-bytes", "2000", "--seconds", "1", "-e", "-c", connections[i], NULL);
        assert_int_equal(code, 0);
        double p50 = value(out, "end to end", "p50"), max = value(out, "end to end", "max");
        assert_true(p50 > 0 && p50 <= max);
        json_decref(out);
    }
}

static void store(void **state)
{
    (void)state;
    int code;
    char url[] = "fs:/tmp/varve-bench-store-XXXXXX";
    assert_non_null(mkdtemp(url + 3));
    json_t *out = bench(&code, "s3", url, "--mib", "5", "--object-mib", "2", "--range-mib", "1", "--gets", "3", "--puts", "2", NULL);
    assert_int_equal(code, 0);
    assert_true(value(out, "put", "requests") == 3 && value(out, "get", "requests") == 5);
    assert_true(value(out, "get, relayed", "throughput") > 0 && value(out, "objects", "bytes") == 5);
    json_decref(out);
    json_decref(bench(&code, "s3", url, "--existing", "varve-bench", NULL)); /* its own objects are gone */
    assert_int_equal(code, VV_EXIT_FAILED);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", url + 3);
    assert_int_equal(system(command), 0);
}

static void refusals(void **state)
{
    (void)state;
    int code;
    json_decref(bench(&code, "fetch", "-t", "nobody", NULL));
    assert_int_equal(code, VV_EXIT_FAILED);
    json_decref(bench(&code, "produce", NULL));
    assert_int_equal(code, VV_EXIT_USAGE);
    json_decref(bench(&code, "latency", "-t", "late", "--acks", "0", NULL));
    assert_int_equal(code, VV_EXIT_USAGE);
    json_decref(bench(&code, "produce", "-t", "late", "--partitions", "9", NULL));
    assert_int_equal(code, VV_EXIT_FAILED);
    json_decref(bench(&code, "produce", "-t", "late", "--mib", "1", "--batch-bytes", "8000000", NULL));
    /* over max.message.bytes */
    assert_int_equal(code, VV_EXIT_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(produce_then_fetch), cmocka_unit_test(without_answers),
                                       cmocka_unit_test(open_loop), cmocka_unit_test(end_to_end), cmocka_unit_test(store), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, rig_start, rig_stop);
}

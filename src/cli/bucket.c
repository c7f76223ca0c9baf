/* bucket.c — see bucket.h. */
#include "bucket.h"

#include "abreast.h"
#include "broker_tier.h"
#include "config.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int vv_cli_store_config(const struct vv_args *a, struct vv_broker_config *config, struct vv_objstore_config *out)
{
    struct vv_error e = {0};
    size_t files_n, sets_n;
    const char **files = vv_arg_all(a, "config", &files_n), **sets = vv_arg_all(a, "set", &sets_n);
    int err = vv_config_load(&vv_env_posix, files, files_n, sets, sets_n, config, &e);
    free(files);
    free(sets);
    if (err) return err == VV_E_USAGE ? vv_cli_usage(a, "%s", e.text) : vv_cli_fail(a, "%s", e.text);
    vv_broker_store_config(config, out);
    return VV_EXIT_DONE;
}

struct vv_bucket *vv_cli_bucket(const struct vv_args *a, int *rc)
{
    struct vv_broker_config config;
    struct vv_bucket_opts opts = {0};
    struct vv_bucket *b = NULL;
    struct vv_error e = {0};
    *rc = vv_cli_store_config(a, &config, &opts.store);
    if (!*rc) {
        int err = vv_bucket_open(a->words[0], &opts, &b, &e);
        if (err) *rc = vv_cli_bucket_fail(a, err, &e);
    }
    vv_config_release(&config);
    return b;
}

int vv_cli_bucket_fail(const struct vv_args *a, int err, const struct vv_error *e)
{
    vv_cli_fail(a, "%s", e->text[0] ? e->text : vv_err_name(err));
    return err == VV_E_CORRUPT ? VV_EXIT_DAMAGE : VV_EXIT_FAILED;
}

struct opening {
    struct vv_bucket *b;
    const struct vv_bucket_topic *t;
    struct vv_bucket_log **v; /* by position in t->partitions */
    _Atomic bool over; /* one failed: none is begun any more */
    pthread_mutex_t mu;
    size_t failed; /* mu: the first by number; SIZE_MAX none */
    int err;
    struct vv_error e;
};

static void open_one(void *ctx, size_t i)
{
    struct opening *o = ctx;
    struct vv_error e = {0};
    if (atomic_load(&o->over)) return;
    int err = vv_bucket_log_open(o->b, o->t, o->t->partitions[i], &o->v[i], &e);
    if (!err) return;
    atomic_store(&o->over, true);
    pthread_mutex_lock(&o->mu);
    if (i < o->failed) {
        o->failed = i;
        o->err = err;
        o->e = e;
    }
    pthread_mutex_unlock(&o->mu);
}

static int open_all(struct vv_bucket *b, const struct vv_bucket_topic *t, struct vv_cli_logs *out, struct vv_error *e)
{
    struct opening o = {.b = b, .t = t, .v = out->v, .mu = PTHREAD_MUTEX_INITIALIZER, .failed = SIZE_MAX};
    vv_abreast(t->partition_count, VV_ABREAST_MAX, open_one, &o); /* each is a few requests one after the other */
    for (size_t i = 0; i < t->partition_count; i++)
        if (out->v[i]) out->v[out->n++] = out->v[i];
    if (o.err) *e = o.e;
    return o.err;
}

int vv_cli_logs_open(const struct vv_args *a, struct vv_bucket *b, const char *topic, int32_t partition,
                     struct vv_cli_logs *out)
{
    struct vv_error e = {0};
    struct vv_bucket_topic t;
    *out = (struct vv_cli_logs){0};
    int err = vv_bucket_find_topic(b, topic, &t, &e);
    if (err) return vv_cli_bucket_fail(a, err, &e);
    out->v = calloc(t.partition_count + 1, sizeof(struct vv_bucket_log *));
    if (!out->v) err = vv_error_set(&e, VV_E_NOMEM, "out of memory");
    if (!err && partition >= 0)
        err = vv_bucket_log_open(b, &t, partition, &out->v[0], &e);
    else if (!err)
        err = open_all(b, &t, out, &e);
    if (partition >= 0) out->n = !err;
    vv_bucket_topic_release(&t);
    return err ? vv_cli_bucket_fail(a, err, &e) : VV_EXIT_DONE;
}

void vv_cli_logs_close(struct vv_cli_logs *l)
{
    for (size_t i = 0; i < l->n; i++) vv_bucket_log_close(l->v[i]);
    free(l->v);
    *l = (struct vv_cli_logs){0};
}

/* ---- positions ---- */

static bool whole_number(const char *text, int64_t *out)
{
    char *end;
    if (!*text || text[strspn(text, "-0123456789")]) return false;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return !errno && !*end;
}

/* Exactly n digits. */
static bool digits(const char **p, int n, int *out)
{
    *out = 0;
    for (; n; n--, (*p)++) {
        if (**p < '0' || **p > '9') return false;
        *out = *out * 10 + (**p - '0');
    }
    return true;
}

static bool zone(const char *p, int64_t *minutes)
{
    int h, m;
    *minutes = 0;
    if ((*p == 'Z' || *p == 'z') && !p[1]) return true;
    if (*p != '+' && *p != '-') return false;
    int sign = *p++ == '+' ? 1 : -1;
    if (!digits(&p, 2, &h) || *p++ != ':' || !digits(&p, 2, &m) || *p || h > 23 || m > 59) return false;
    *minutes = sign * (h * 60 + m);
    return true;
}

static bool rfc3339(const char *p, int64_t *ms)
{
    struct tm t = {0};
    int year, month, fraction = 0;
    int64_t minutes;
    if (!digits(&p, 4, &year) || *p++ != '-' || !digits(&p, 2, &month) || *p++ != '-' ||
        !digits(&p, 2, &t.tm_mday)) return false;
    if (*p != 'T' && *p != 't' && *p != ' ') return false;
    p++;
    if (!digits(&p, 2, &t.tm_hour) || *p++ != ':' || !digits(&p, 2, &t.tm_min) || *p++ != ':' ||
        !digits(&p, 2, &t.tm_sec)) return false;
    if (*p == '.') {
        int scale = 100;
        if (*++p < '0' || *p > '9') return false;
        for (; *p >= '0' && *p <= '9'; p++, scale /= 10) fraction += (*p - '0') * scale;
    }
    if (!zone(p, &minutes)) return false;
    int day = t.tm_mday, mon = month - 1;
    if (month < 1 || month > 12 || day < 1 || t.tm_hour > 23 || t.tm_min > 59 || t.tm_sec > 60) return false;
    t.tm_year = year - 1900;
    t.tm_mon = mon;
    int64_t s = timegm(&t);
    if (t.tm_mday != day || t.tm_mon != mon) return false; /* no 31st of June (and no leap second at the end of a day) */
    *ms = (s - minutes * 60) * 1000 + fraction;
    return true;
}

bool vv_position_parse(const char *text, struct vv_position *out)
{
    *out = (struct vv_position){.given = true};
    if (whole_number(text, &out->at)) return out->at >= 0;
    out->is_time = true;
    if (!strncmp(text, "ts:", 3)) return whole_number(text + 3, &out->at);
    return rfc3339(text, &out->at);
}

const char *vv_time_text(int64_t ms, char out[40])
{
    int64_t s = ms / 1000 - (ms % 1000 < 0);
    time_t t = (time_t)s;
    struct tm tm;
    if (ms == -1 || !gmtime_r(&t, &tm)) return "-";
    size_t n = strftime(out, 40, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 40 - n, ".%03dZ", (int)(ms - s * 1000));
    return out;
}

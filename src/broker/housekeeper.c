/* housekeeper.c — see housekeeper.h. Everything here is cheap on control; what may take long is handed to the iopool.
 *
 * The clock: wall time that leaves monotonic time by more than an hour stops deletion by time until it returns or a
 * person confirms it by creating varve-clock-confirm in the log directory. The baseline follows slowly (1 ms per
 * look), as clocks are slewed. varve-clock journals wall time for the comparison across a restart. Flushing by
 * flush.ms and flush.messages is looked at once a second; answers to producers never wait for it. */
#include "housekeeper.h"

#include "partition.h"
#include "topics.h"
#include "varve/bytes.h"
#include "varve/vlog.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TICK_US        1000000
#define JOURNAL_MS     60000
#define ROLLS_PER_TICK 256
#define GIB            (1ULL << 30)
#define RATE_TICKS     300 /* the rate of producers is an average that forgets over about so many seconds */

struct vv_housekeeper {
    struct vv_broker *b;
    struct vv_timer timer;
    struct vv_task arm, disarm;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stopped;
    int disk_told;
    uint64_t disk_written;      /* at the last look */
    double disk_rate;           /* bytes a second */
    int64_t disk_us;            /* monotonic, of the last look */
    struct vv_clock_watch clock;
    char *clock_path, *confirm_path;
    int64_t journalled_ms, maintained_ms, last_ms; /* monotonic */
    struct vv_partition *roll[ROLLS_PER_TICK];
    struct vv_topic *roll_topic[ROLLS_PER_TICK];
    size_t roll_count;
};

/* ---- disk ---- */

uint64_t vv_disk_reserve(const struct vv_broker_config *c, uint64_t total)
{
    return vv_space_reserve(c->tier_disk_reserve, total);
}

enum vv_disk_state vv_disk_state_of(const struct vv_broker_config *c, const struct vv_space *s)
{
    uint64_t reserve = vv_disk_reserve(c, s->total);
    if (s->available < reserve) return VV_DISK_REFUSE;
    return s->available / 2 < reserve ? VV_DISK_THROTTLE : VV_DISK_OK;
}

/* How long the disk lasts if nothing leaves it: what an operator must know while the bucket is away. */
static void look_at_rate(struct vv_housekeeper *h, uint64_t written, uint64_t room)
{
    int64_t now = vv_mono_us(h->b->env), passed = now - h->disk_us;
    if (h->disk_us && passed > 0) {
        double lately = (double)(written - h->disk_written) * 1e6 / (double)passed;
        double share = VV_MIN((double)passed / 1e6 / RATE_TICKS, 1.0);
        h->disk_rate += (lately - h->disk_rate) * share;
    }
    h->disk_us = now;
    h->disk_written = written;
    bool lasts = h->disk_rate < 1 || (double)room / h->disk_rate > 1e10;
    atomic_store(&h->b->disk_seconds_left, lasts ? INT64_MAX : (int64_t)((double)room / h->disk_rate));
}

/* True: there is something to do about it. */
static bool look_at_disk(struct vv_housekeeper *h)
{
    static const char *const says[] = {"enough room again",
                                       "room runs short: producers to tiered topics are slowed down",
                                       "the reserve is reached: producers to tiered topics are refused"};
    struct vv_broker *b = h->b;
    struct vv_space s;
    uint64_t written = atomic_load(&b->disk_written);
    if (vv_fs_space(b->env, b->log_dir, &s)) return false;
    uint64_t reserve = vv_disk_reserve(b->config, s.total);
    int now = vv_disk_state_of(b->config, &s), before = h->disk_told;
    uint64_t room = s.available > reserve ? s.available - reserve : 0;
    look_at_rate(h, written, room);
    atomic_store(&b->disk_written_slow, written + 1 + (room > reserve ? room - reserve : 0));
    atomic_store(&b->disk_written_max, reserve ? written + 1 + room : 0); /* without a reserve the disk itself refuses */
    atomic_store(&b->disk_state, now);
    h->disk_told = now;
    if (now == before) return now != VV_DISK_OK; /* proven copies make room: retention.c */
    vlog(now == VV_DISK_OK ? VV_INFO : VV_WARN,
         "disk of %s: %s (%" PRIu64 " MiB free, tier.disk.reserve is %" PRIu64 " MiB)", b->log_dir, says[now],
         s.available >> 20, reserve >> 20);
    return now != VV_DISK_OK;
}

/* ---- the clock ---- */

void vv_clock_watch_confirm(struct vv_clock_watch *w, int64_t wall_ms, int64_t mono_ms)
{
    *w = (struct vv_clock_watch){.gap_ms = wall_ms - mono_ms, .not_before_ms = 0, .trusted = true};
}

void vv_clock_watch_begin(struct vv_clock_watch *w, int64_t wall_ms, int64_t mono_ms, int64_t journalled_ms)
{
    vv_clock_watch_confirm(w, wall_ms, mono_ms);
    if (!journalled_ms) return;
    if (wall_ms < journalled_ms - VV_CLOCK_JUMP_MS) { /* behind the past: wait until it has caught up */
        w->not_before_ms = journalled_ms;
        w->trusted = false;
    } else if (wall_ms - journalled_ms > VV_CLOCK_AWAY_MS) {
        w->gap_ms = journalled_ms - mono_ms;
        w->trusted = false;
    }
}

bool vv_clock_watch_look(struct vv_clock_watch *w, int64_t wall_ms, int64_t mono_ms)
{
    int64_t away = wall_ms - mono_ms - w->gap_ms;
    if (w->not_before_ms) {
        if (wall_ms >= w->not_before_ms - VV_CLOCK_JUMP_MS && wall_ms - w->not_before_ms <= VV_CLOCK_AWAY_MS)
            vv_clock_watch_confirm(w, wall_ms, mono_ms);
        return w->trusted;
    }
    w->trusted = away >= -VV_CLOCK_JUMP_MS && away <= VV_CLOCK_JUMP_MS;
    if (w->trusted) w->gap_ms += (away > 0) - (away < 0);
    return w->trusted;
}

/* A second is long enough to delete a year: whoever deletes by age compares again, at the moment he read the clock. */
bool vv_broker_time_trusted(struct vv_broker *b, int64_t wall_ms)
{
    int64_t gap = atomic_load(&b->clock_gap_ms);
    if (!atomic_load(&b->time_trusted)) return false;
    if (!gap) return true;
    int64_t away = wall_ms - vv_mono_ms(b->env) - gap;
    return away >= -VV_CLOCK_JUMP_MS && away <= VV_CLOCK_JUMP_MS;
}

static void believe(struct vv_housekeeper *h)
{
    atomic_store(&h->b->clock_gap_ms, h->clock.gap_ms); /* before time_trusted becomes true */
}

static int64_t read_journal(struct vv_housekeeper *h)
{
    uint8_t *text = NULL;
    size_t n;
    if (vv_fs_read_file(h->b->env, h->clock_path, 64, &text, &n)) return 0;
    int64_t v = strtoll((const char *)text, NULL, 10);
    free(text);
    return VV_MAX(v, (int64_t)0);
}

static void write_journal(struct vv_housekeeper *h, int64_t wall, int64_t mono)
{
    char text[32];
    if (!h->clock.trusted) return;
    int n = snprintf(text, sizeof text, "%" PRId64 "\n", wall);
    vv_fs_write_file(h->b->env, h->clock_path, text, (size_t)n); /* lost: the comparison is with an older time */
    h->journalled_ms = mono;
}

static void say_clock(struct vv_housekeeper *h, bool trusted)
{
    if (trusted)
        VLOG_INFO("the clock is believed again: retention by time goes on");
    else
        VLOG_WARN("the clock jumped by more than %s: nothing is deleted by age until it returns. If it is right now: "
                  "touch %s",
                  "an hour (or 30 days while the broker was off)", h->confirm_path);
}

static void look_at_clock(struct vv_housekeeper *h)
{
    struct vv_broker *b = h->b;
    struct vv_stat st;
    int64_t wall = vv_wall_ms(b->env), mono = vv_mono_ms(b->env);
    bool trusted = vv_clock_watch_look(&h->clock, wall, mono);
    if (!trusted && !vv_fs_stat(b->env, h->confirm_path, &st)) {
        vv_fs_unlink(b->env, h->confirm_path);
        vv_clock_watch_confirm(&h->clock, wall, mono);
        trusted = true;
    }
    believe(h);
    if (atomic_exchange(&b->time_trusted, trusted) != trusted) say_clock(h, trusted);
    if (mono - h->journalled_ms >= JOURNAL_MS) write_journal(h, wall, mono);
}

/* ---- partitions ---- */

struct interval_flush {
    struct vv_flush_waiter w;
    struct vv_topic *topic;
};

static void flush_done(struct vv_flush_waiter *w, int err)
{
    struct interval_flush *f = VV_CONTAINER(w, struct interval_flush, w);
    (void)err; /* the log is offline by itself */
    vv_topic_unref(f->topic);
    free(f);
}

static void flush_soon(struct vv_topic *t, struct vv_partition *p, int64_t end)
{
    struct interval_flush *f = calloc(1, sizeof *f);
    if (!f) return; /* the next look tries again */
    atomic_fetch_add(&t->refs, 1);
    f->topic = t;
    f->w.offset = end;
    f->w.done = flush_done;
    vv_partition_flush_wait(p, &f->w);
}

/* A multiple of the interval lies between two looks. */
static bool interval_over(int64_t interval, int64_t before, int64_t now)
{
    return interval != INT64_MAX && now / VV_MAX(interval, (int64_t)1) != before / VV_MAX(interval, (int64_t)1);
}

struct look {
    struct vv_housekeeper *h;
    int64_t now_ms, before_ms;
    bool maintain;
};

static void look_at_partition(struct look *l, struct vv_topic *t, struct vv_partition *p)
{
    struct vv_housekeeper *h = l->h;
    if (h->roll_count < ROLLS_PER_TICK && vv_partition_roll_due(p)) {
        atomic_fetch_add(&t->refs, 1);
        h->roll_topic[h->roll_count] = t;
        h->roll[h->roll_count++] = p;
    } else if (l->maintain || vv_log_has_pending_seal(p->log)) { /* a seal that failed, and nobody appends */
        vv_partition_maintain(p);
    }
    if (t->config.flush_ms == INT64_MAX && t->config.flush_messages == INT64_MAX) return;
    int64_t end = vv_log_end(p->log), waiting = end - vv_log_flushed(p->log);
    if (waiting > 0 &&
        (waiting >= t->config.flush_messages || interval_over(t->config.flush_ms, l->before_ms, l->now_ms)))
        flush_soon(t, p, end);
}

static void look_at_topic(void *ctx, struct vv_topic *t)
{
    for (int32_t i = 0; i < t->partition_count; i++)
        if (vv_topic_partition(t, i)) look_at_partition(ctx, t, vv_topic_partition(t, i));
}

static void look_at_topics(struct vv_housekeeper *h, bool maintain)
{
    int64_t now = vv_mono_ms(h->b->env), every = h->b->config->log_retention_check_interval_ms;
    struct look l = {.h = h, .now_ms = now, .before_ms = h->last_ms};
    l.maintain = maintain || now - h->maintained_ms >= every;
    if (l.maintain) h->maintained_ms = now;
    h->last_ms = now;
    h->roll_count = 0;
    vv_topics_each(h->b->topics, look_at_topic, &l);
    for (size_t i = 0; i < h->roll_count; i++) { /* makes files: not under the registry's lock */
        int err = vv_log_roll(h->roll[i]->log);
        if (err)
            VLOG_WARN("%s-%d: cannot close a quiet segment: %s", h->roll_topic[i]->name, (int)h->roll[i]->id,
                      vv_err_name(err));
        vv_partition_maintain(h->roll[i]);
        vv_topic_unref(h->roll_topic[i]);
    }
}

/* ---- life ---- */

static void tick(struct vv_timer *t)
{
    struct vv_housekeeper *h = VV_CONTAINER(t, struct vv_housekeeper, timer);
    bool short_of_room = look_at_disk(h);
    look_at_clock(h);
    look_at_topics(h, short_of_room);
    vv_topics_tick(h->b);
    vv_timer_arm(h->b->control, &h->timer, vv_reactor_now_us(h->b->control) + TICK_US);
}

static void arm(struct vv_task *task)
{
    tick(&VV_CONTAINER(task, struct vv_housekeeper, arm)->timer);
}

static void disarm(struct vv_task *task)
{
    struct vv_housekeeper *h = VV_CONTAINER(task, struct vv_housekeeper, disarm);
    vv_timer_cancel(h->b->control, &h->timer);
    write_journal(h, vv_wall_ms(h->b->env), vv_mono_ms(h->b->env));
    pthread_mutex_lock(&h->lock);
    h->stopped = true;
    pthread_cond_signal(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

static void release(struct vv_housekeeper *h)
{
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    free(h->clock_path);
    free(h->confirm_path);
    free(h);
}

int vv_housekeeper_start(struct vv_broker *b, struct vv_housekeeper **out, struct vv_error *e)
{
    struct vv_housekeeper *h = calloc(1, sizeof *h);
    if (!h) return vv_error_set(e, VV_E_NOMEM, "out of memory");
    h->b = b;
    h->timer.fire = tick;
    h->arm.run = arm;
    h->disarm.run = disarm;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    if (asprintf(&h->clock_path, "%s/varve-clock", b->log_dir) < 0) h->clock_path = NULL;
    if (asprintf(&h->confirm_path, "%s/varve-clock-confirm", b->log_dir) < 0) h->confirm_path = NULL;
    if (!h->clock_path || !h->confirm_path) {
        release(h);
        return vv_error_set(e, VV_E_NOMEM, "out of memory");
    }
    int64_t wall = vv_wall_ms(b->env), mono = vv_mono_ms(b->env);
    vv_clock_watch_begin(&h->clock, wall, mono, read_journal(h));
    believe(h);
    atomic_store(&b->time_trusted, h->clock.trusted);
    if (!h->clock.trusted) say_clock(h, false);
    atomic_store(&b->disk_seconds_left, INT64_MAX);
    h->last_ms = mono;
    h->maintained_ms = mono - b->config->log_retention_check_interval_ms; /* nothing was deleted by age before the first look */
    h->journalled_ms = mono - JOURNAL_MS;
    vv_reactor_post(b->control, &h->arm);
    *out = h;
    return VV_OK;
}

void vv_housekeeper_stop(struct vv_housekeeper *h)
{
    if (!h) return;
    vv_reactor_post(h->b->control, &h->disarm);
    pthread_mutex_lock(&h->lock);
    while (!h->stopped)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
    release(h);
}

/* ev_story.c — a small simulation: every station draws its next session from its site's demand, a
 * heap keeps the events of all stations in time order.
 *
 * Arrivals are a Poisson process with a rate that changes by the hour, drawn by thinning:
 * candidates come at the highest rate and are kept with the probability demand / highest. A
 * session draws its energy and power, meters every 15 minutes, slows down above 80 % state of
 * charge, and ends; the station is then free for the next. Invariant: each station has exactly
 * one pending event in the heap until it passes the end. */
#include "ev_story.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOUR_MS  3600000LL
#define METER_MS 900000LL

enum kind { MOTORWAY, OFFICE, MALL, HOMES };

static const struct {
    const char *name, *code;
    enum kind kind;
    double kw;      /* what a station there delivers */
    double per_day; /* sessions per station on an average day */
} sites[EV_SITES] = {
    {"Motorway North", "MWN", MOTORWAY, 150, 11}, {"Motorway South", "MWS", MOTORWAY, 150, 9},
    {"Harbour Offices", "HOF", OFFICE, 22, 2.2},  {"City Mall", "MAL", MALL, 50, 6},
    {"Old Town", "OLD", HOMES, 11, 1.6},          {"Garden Quarter", "GAR", HOMES, 11, 1.3},
};

struct station {
    int64_t next_ms; /* of its pending event */
    int active;      /* a session runs */
    int64_t began_ms, meter_wh, session_wh, goal_wh;
    int soc0, seq;
    double kw, battery_kwh;
    uint64_t session, token;
};
struct ev_story {
    uint64_t rng[2];
    int64_t to_ms;
    int count;
    struct station *st;
    int *heap; /* station numbers by next_ms */
    int heap_n;
};

/* xorshift128+ */
static uint64_t draw(struct ev_story *s)
{
    uint64_t a = s->rng[0], b = s->rng[1];
    s->rng[0] = b;
    a ^= a << 23;
    s->rng[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
    return s->rng[1] + b;
}

static double uniform(struct ev_story *s)
{
    return ((double)(draw(s) >> 11) + 0.5) / 9007199254740992.0;
}

const char *ev_site_name(int site)
{
    return sites[site].name;
}

int ev_station_site(int station)
{
    return station % EV_SITES;
}

void ev_station_name(int station, char out[24])
{
    snprintf(out, 24, "%s-%03d", sites[ev_station_site(station)].code, station / EV_SITES + 1);
}

static double bump(double hour, double at, double width)
{
    double d = fabs(hour - at);
    if (d > 12) d = 24 - d;
    return exp(-d * d / (2 * width * width));
}

double ev_demand(int site, int hour_of_week)
{
    int day = hour_of_week / 24;
    double h = hour_of_week % 24;
    int weekend = day >= 5;
    switch (sites[site].kind) {
    case MOTORWAY: /* day traffic; Friday and Sunday evenings */
        return 0.15 + bump(h, 10, 3) + 1.1 * bump(h, 17, 3) +
               (day == 4 || day == 6 ? 0.7 * bump(h, 18, 2) : 0);
    case OFFICE: /* people arrive, some swap after lunch; nobody at weekends */
        return weekend ? 0.04 : 0.03 + 2.2 * bump(h, 8, 1) + 0.8 * bump(h, 13, 1);
    case MALL:
        return 0.03 + (weekend ? 1.6 : 0.9) * bump(h, 15, 3) + 0.3 * bump(h, 11, 2);
    default: /* homes: in the evening, later at weekends */
        return 0.08 + 1.6 * bump(h, weekend ? 20 : 18, 2) + 0.2 * bump(h, 13, 4);
    }
}

/* Hour of the week of a Unix time: 1970-01-01 was a Thursday. */
static int hour_of_week(int64_t ms)
{
    return (int)((ms / HOUR_MS + 3 * 24) % 168);
}

#define DEMAND_MAX 2.6

/* When the next session begins, from t on. */
static int64_t next_arrival(struct ev_story *s, int site, int64_t t)
{
    double mean = 0;
    for (int h = 0; h < 168; h++)
        mean += ev_demand(site, h) / 168;
    double per_ms = sites[site].per_day / (24.0 * HOUR_MS) / mean * DEMAND_MAX;
    while (t < s->to_ms) {
        t += (int64_t)(-log(uniform(s)) / per_ms) + 1;
        if (uniform(s) * DEMAND_MAX < ev_demand(site, hour_of_week(t))) return t;
    }
    return INT64_MAX;
}

static void sift_down(struct ev_story *s, int i)
{
    for (;;) {
        int best = i;
        for (int c = 2 * i + 1; c <= 2 * i + 2 && c < s->heap_n; c++)
            if (s->st[s->heap[c]].next_ms < s->st[s->heap[best]].next_ms) best = c;
        if (best == i) return;
        int t = s->heap[i];
        s->heap[i] = s->heap[best];
        s->heap[best] = t;
        i = best;
    }
}

struct ev_story *ev_story_new(uint64_t seed, int stations, int64_t from_ms, int64_t to_ms)
{
    struct ev_story *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->rng[0] = seed * 0x9e3779b97f4a7c15u + 1;
    s->rng[1] = seed ^ 0xbf58476d1ce4e5b9u;
    s->to_ms = to_ms;
    s->count = stations < EV_STATIONS_MAX ? stations : EV_STATIONS_MAX;
    s->st = calloc((size_t)s->count, sizeof *s->st);
    s->heap = calloc((size_t)s->count, sizeof *s->heap);
    if (!s->st || !s->heap) {
        ev_story_free(s);
        return NULL;
    }
    for (int i = 0; i < 16; i++)
        draw(s);
    for (int i = 0; i < s->count; i++) {
        s->st[i].meter_wh = (int64_t)(uniform(s) * 4e6);
        s->st[i].next_ms = next_arrival(s, ev_station_site(i), from_ms);
        s->heap[s->heap_n++] = i;
    }
    for (int i = s->heap_n / 2; i >= 0; i--)
        sift_down(s, i);
    return s;
}

void ev_story_free(struct ev_story *s)
{
    if (!s) return;
    free(s->st);
    free(s->heap);
    free(s);
}

static void begin_session(struct ev_story *s, struct station *st, int site)
{
    st->active = 1;
    st->began_ms = st->next_ms;
    st->session = draw(s);
    st->token = draw(s);
    st->seq = 0;
    st->session_wh = 0;
    st->battery_kwh = 40 + 50 * uniform(s);
    st->soc0 = 10 + (int)(45 * uniform(s));
    st->kw = sites[site].kw * (0.7 + 0.3 * uniform(s));
    double room = (100 - st->soc0) / 100.0;
    st->goal_wh = (int64_t)(st->battery_kwh * 1000 * room * (0.5 + 0.45 * uniform(s)));
}

static int soc(const struct station *st)
{
    double v = st->soc0 + (double)st->session_wh / (st->battery_kwh * 10);
    return v > 100 ? 100 : (int)v;
}

/* Power now: full until 80 %, then it tapers off. */
static double power_kw(const struct station *st)
{
    int level = soc(st);
    return level < 80 ? st->kw : st->kw * (0.25 + (100 - level) / 30.0);
}

static void iso_time(int64_t ms, char out[32])
{
    time_t t = (time_t)(ms / 1000);
    struct tm tm;
    gmtime_r(&t, &tm);
    size_t n = strftime(out, 32, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, 32 - n, ".%03dZ", (int)(ms % 1000));
}

static void describe(const struct station *st, struct ev_event *e)
{
    static const char *const types[] = {"Started", "Updated", "Ended"};
    static const char *const triggers[] = {"CablePluggedIn", "MeterValuePeriodic", "EVDeparted"};
    static const char *const states[] = {"Charging", "Charging", "Idle"};
    char when[32], token[96] = "", stop[48] = "";
    iso_time(e->time_ms, when);
    if (e->type == EV_STARTED)
        snprintf(token, sizeof token, "\"idToken\":{\"idToken\":\"%08X\",\"type\":\"ISO14443\"},",
                 (unsigned)st->token);
    if (e->type == EV_ENDED)
        snprintf(stop, sizeof stop, ",\"stoppedReason\":\"%s\"",
                 st->session_wh >= st->goal_wh ? "EVDisconnected" : "Local");
    int n = snprintf(
        e->json, sizeof e->json,
        "{\"eventType\":\"%s\",\"timestamp\":\"%s\",\"triggerReason\":\"%s\",\"seqNo\":%d,"
        "\"transactionInfo\":{\"transactionId\":\"%016llx\",\"chargingState\":\"%s\"%s},%s"
        "\"evse\":{\"id\":1,\"connectorId\":1},"
        "\"meterValue\":[{\"timestamp\":\"%s\",\"sampledValue\":["
        "{\"value\":%lld,\"measurand\":\"Energy.Active.Import.Register\",\"unitOfMeasure\":{"
        "\"unit\":\"Wh\"}},"
        "{\"value\":%.0f,\"measurand\":\"Power.Active.Import\",\"unitOfMeasure\":{\"unit\":\"W\"}},"
        "{\"value\":%d,\"measurand\":\"SoC\",\"unitOfMeasure\":{\"unit\":\"Percent\"}}]}],"
        "\"customData\":{\"vendorId\":\"varve.demo\",\"site\":\"%s\",\"station\":\"%s\","
        "\"sessionWh\":%lld}}",
        types[e->type], when, triggers[e->type], st->seq, (unsigned long long)st->session,
        states[e->type], stop, token, when, (long long)st->meter_wh,
        e->type == EV_ENDED ? 0 : power_kw(st) * 1000, soc(st), ev_site_name(e->site), e->key,
        (long long)st->session_wh);
    e->json_n = (size_t)n < sizeof e->json ? (size_t)n : sizeof e->json - 1;
}

/* Energy flows until the next event: a full meter interval, or less when the goal is near. */
static void advance(struct ev_story *s, struct station *st, int site, struct ev_event *e)
{
    if (e->type == EV_ENDED) {
        st->active = 0;
        st->next_ms = next_arrival(s, site, st->next_ms + 120000);
        return;
    }
    double wh = power_kw(st) * 1000 * (double)METER_MS / HOUR_MS;
    int64_t left = st->goal_wh - st->session_wh;
    double part = wh > (double)left ? (double)left / wh : 1;
    if (e->type == EV_UPDATED && uniform(s) < 0.02) part *= uniform(s); /* somebody unplugs early */
    int64_t add = (int64_t)(wh * part);
    st->session_wh += add;
    st->meter_wh += add;
    st->next_ms += (int64_t)((double)METER_MS * part) + 1000 + (int64_t)(draw(s) % 2000);
    st->seq++;
    if (part < 1) st->active = 2; /* the next event ends it */
}

int ev_story_next(struct ev_story *s, struct ev_event *e)
{
    if (!s->heap_n) return 0;
    int i = s->heap[0], site = ev_station_site(i);
    struct station *st = &s->st[i];
    if (st->next_ms >= s->to_ms) return 0;
    e->time_ms = st->next_ms;
    e->site = site;
    e->station = i;
    ev_station_name(i, e->key);
    e->type = st->active == 0 ? EV_STARTED : st->active == 2 ? EV_ENDED : EV_UPDATED;
    if (e->type == EV_STARTED) begin_session(s, st, site);
    e->session_wh = st->session_wh;
    describe(st, e);
    advance(s, st, site, e);
    sift_down(s, 0);
    return 1;
}

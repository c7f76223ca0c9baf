/* ev_story.h — the EV-charging story: months of charging sessions of some stations, event by
 * event, from a seed.
 *
 * Events are shaped like OCPP 2.0.1's TransactionEventRequest (eventType Started, Updated, Ended;
 * seqNo; meterValue in Wh), with the site and the station in customData, and come in time order.
 * Sessions begin by the hour of the day and the day of the week, differently for a motorway, an
 * office, a mall and homes. Pure: the same seed tells the same story. One thread. */
#ifndef VARVE_CLI_EV_STORY_H
#define VARVE_CLI_EV_STORY_H
#include <stddef.h>
#include <stdint.h>

#define EV_SITES        6
#define EV_STATIONS_MAX 512

enum ev_type { EV_STARTED, EV_UPDATED, EV_ENDED };
struct ev_event {
    int64_t time_ms;
    enum ev_type type;
    int site, station;  /* numbers; names by ev_site_name, ev_station_name */
    int64_t session_wh; /* energy of this session so far */
    char key[24];       /* station name: the record's key */
    char json[1024];
    size_t json_n;
};

struct ev_story;
/* Sessions between from_ms and to_ms (Unix ms, UTC). NULL when out of memory. */
struct ev_story *ev_story_new(uint64_t seed, int stations, int64_t from_ms, int64_t to_ms);
/* The next event, in time order; returns 0 at the end. */
int ev_story_next(struct ev_story *s, struct ev_event *out);
void ev_story_free(struct ev_story *s);
const char *ev_site_name(int site);
int ev_station_site(int station);
void ev_station_name(int station, char out[24]);
/* Relative demand of a site's kind in an hour of the week (0 = Monday 00:00 UTC … 167): tests,
 * pictures. */
double ev_demand(int site, int hour_of_week);
#endif

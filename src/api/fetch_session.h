/* fetch_session.h — incremental fetch sessions (KIP-227): what a client asked for and was told, so that it need not say
 * it again.
 *
 * The cache is one per process and bounded twice: sessions (max.incremental.fetch.session.cache.slots) and partitions
 * in all of them. A full cache drops a session that was silent for two minutes or the one longest unused that is
 * smaller than the newcomer; else the newcomer gets none, which a client takes as "go on with full fetches".
 *
 * A session is used by one request at a time (busy): from vv_fetch_session_begin to _end its partitions belong to that
 * request's reactor and no lock is needed; a second request meanwhile has the wrong epoch by definition. Removal of a
 * busy session only takes it out of the cache; its user frees it. Threads: any; one mutex for the cache, held for
 * memory work only. */
#ifndef VARVE_API_FETCH_SESSION_H
#define VARVE_API_FETCH_SESSION_H
#include "varve/bytes.h"
#include "gen/messages.h"

struct vv_session_part {
    struct vv_session_part *prev, *next; /* in the order of service */
    struct vv_session_part *hash_next;
    struct vv_uuid id; /* of the topic, when the session goes by ids */
    struct FetchRequest_FetchPartition q;
    int64_t high_watermark, log_start; /* as last told; -1 not yet */
    int32_t name_n;
    char name[]; /* of the topic, when the session goes by names */
};

struct vv_fetch_session;
/* What the request's SessionId and SessionEpoch ask for:
 * 0 and *out set: serve the session's partitions, tell its id; 0 and NULL: no session, serve the request's;
 * FETCH_SESSION_ID_NOT_FOUND, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR: answer that. */
int vv_fetch_session_begin(const struct FetchRequest *q, bool by_id, size_t slots, int64_t now_ms,
                           struct vv_fetch_session **out);
void vv_fetch_session_end(struct vv_fetch_session *s);
int32_t vv_fetch_session_id(const struct vv_fetch_session *s);
bool vv_fetch_session_full(const struct vv_fetch_session *s); /* just made: everything is told */
size_t vv_fetch_session_count(const struct vv_fetch_session *s);
struct vv_session_part *vv_fetch_session_first(struct vv_fetch_session *s);
void vv_fetch_session_to_end(struct vv_fetch_session *s, struct vv_session_part *p); /* it was served: others first */
size_t vv_fetch_sessions_cached(void);
void vv_fetch_sessions_clear(void); /* tests, end of the process */
#endif

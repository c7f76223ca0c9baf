/* groups.h — the group coordinator of Kafka's classic protocol, from the inside.
 *
 * A group is a state machine (Empty, PreparingRebalance, CompletingRebalance, Stable) over its members, and a table of
 * committed offsets; both are records in __consumer_offsets. Requests come as struct vv_group_call: a decoded message,
 * an arena, and done(), which is called exactly once, at once or later (a parked join or sync, a durable commit).
 *
 * Invariants: an offset can be fetched once its record is durable, not before; what is answered with success is in the
 * log; a group that left the table is DEAD and lives on only until the last write that names it ended.
 * Threads: everything here runs on `control`; open, load and close run before it starts or after it stopped.
 * The outside (clock, timers, log, topics) comes through struct vv_group_ops: tests need neither network nor disk.
 * Sources: Kafka protocol guide; KIP-345 (static members), KIP-394 (member ids), KIP-211 (offset expiry), KIP-814. */
#ifndef VARVE_GROUPS_H
#define VARVE_GROUPS_H
#include "broker.h"
#include "group_map.h"
#include "gen/messages.h"

#define VV_OFFSETS_TOPIC "__consumer_offsets"
#define VV_GROUP_ID_MAX 1024                       /* bytes of group, instance and client ids we keep */
#define VV_GROUP_PROTOCOLS_MAX 256                 /* per member */
#define VV_GROUPS_BYTES_MAX ((size_t)256 << 20)    /* of all groups together */
#define VV_GROUP_JOIN_TIMEOUT_MS (5 * 60 * 1000)   /* a first join may stay parked that long (Kafka's constant) */

struct vv_group_call {
    struct vv_task task; /* the caller's */
    const void *req;     /* e.g. const struct JoinGroupRequest *; valid until done */
    int16_t version;
    struct vv_arena *arena; /* for the response */
    struct vv_str client_id;
    const char *client_host;
    void (*done)(struct vv_group_call *c, const void *response);
};

struct vv_group_ops {
    int64_t (*mono_us)(void *ctx);
    int64_t (*wall_ms)(void *ctx);
    bool (*time_trusted)(void *ctx);
    void (*random)(void *ctx, void *dst, size_t n);
    void (*arm)(void *ctx, struct vv_timer *t, int64_t due_us);
    void (*cancel)(void *ctx, struct vv_timer *t);
    /* Partitions of __consumer_offsets, which is made when it is not there. */
    int (*log_open)(void *ctx, int32_t *partitions);
    int (*append)(void *ctx, int32_t partition, uint8_t *batch, size_t n, struct vv_produce_done *d);
    /* Looks a topic up by id, or by name when id is NULL. name_out: 250 bytes, may be NULL. */
    bool (*topic)(void *ctx, struct vv_str name, const struct vv_uuid *id, char *name_out, struct vv_uuid *id_out,
                  int32_t *partitions);
    void (*release)(void *ctx); /* at close; may be NULL */
};

struct vv_group_config {
    int32_t initial_delay_ms, session_min_ms, session_max_ms, size_max, metadata_max, batch_max;
    int64_t retention_ms, expiry_interval_ms, commit_timeout_ms;
};

enum vv_group_state {
    VV_GROUP_EMPTY,
    VV_GROUP_PREPARING,  /* members rejoin */
    VV_GROUP_COMPLETING, /* a generation exists, the leader's assignment is awaited */
    VV_GROUP_STABLE,
    VV_GROUP_DEAD,
};
const char *vv_group_state_name(enum vv_group_state s); /* as Kafka's tools print them */

struct vv_group_protocol {
    struct vv_str name;
    struct vv_bytes metadata;
};
struct vv_group_protocols { /* one allocation holds the array and its bytes */
    struct vv_group_protocol *v;
    int32_t n;
    size_t bytes;
};

struct vv_group;
struct vv_group_member {
    struct vv_gnode by_id, by_instance;
    struct vv_group_member *next, *prev; /* in order of joining */
    struct vv_group *group;
    struct vv_str id, instance; /* instance null: a dynamic member */
    struct vv_str client_id, client_host;
    int32_t rebalance_ms, session_ms;
    struct vv_group_protocols protocols;
    struct vv_bytes assignment, staged; /* staged: the leader sent it, not yet durable */
    struct vv_group_call *join, *sync;  /* parked */
    struct vv_timer session;
    bool is_new;       /* has not got its first answer: expires even while it waits */
    bool pending_sync; /* owes a SyncGroup in this generation */
};
/* A member id that was given out (KIP-394) and not used yet. */
struct vv_group_pending {
    struct vv_gnode by_id;
    struct vv_group *group;
    struct vv_timer timer;
};

struct vv_group_vote {
    struct vv_str name;
    int32_t members;
};

struct vv_group_offset {
    struct vv_gnode node; /* key: partition (4 bytes, big-endian), topic */
    int64_t offset, commit_ms, expire_ms; /* expire_ms -1: by the retention rule */
    int32_t leader_epoch;
    struct vv_str metadata; /* owned, "" is NULL */
    struct vv_uuid topic_id;
    bool present;        /* a durable commit exists */
    bool marked;         /* chosen by the deletion that runs */
    int32_t pending;     /* commits on their way to the log */
    uint64_t floor;      /* writes before this one were overtaken by a deletion */
    uint64_t written;    /* the write that gave the values */
};

struct vv_group {
    struct vv_gnode node;
    struct vv_groups *groups;
    struct vv_str id;
    enum vv_group_state state, previous;
    int64_t state_ms; /* wall clock of the last transition, -1 unknown */
    int32_t generation;
    struct vv_str protocol_type, protocol; /* null: none */
    struct vv_group_member *first, *last, *leader;
    struct vv_gmap members, instances, pending;
    int32_t awaiting_join;
    struct vv_group_vote *votes; /* protocol names and how many members can do them */
    int32_t vote_count;
    bool new_member_added, storing; /* storing: this generation's assignment is on its way to the log */
    int32_t initial_delay_ms, initial_left_ms;
    struct vv_timer join_timer, sync_timer;
    struct vv_str *topics; /* subscribed, sorted; only when topics_known */
    int32_t topic_count;
    bool topics_known;
    struct vv_gmap offsets;
    int32_t writes;
};

struct vv_group_write;
struct vv_groups {
    const struct vv_group_ops *ops;
    void *ctx;
    struct vv_group_config config;
    struct vv_gmap table;
    size_t bytes;
    uint64_t write_seq;
    uint64_t writes_done; /* what the table shows has grown by these */
    struct vv_group_write *writes;
    struct vv_timer expiry;
    bool stopping;
};

/* ---- groups.c: life cycle, table ---- */
int vv_groups_new(const struct vv_group_ops *ops, void *ctx, const struct vv_group_config *c, struct vv_groups **out);
void vv_groups_started(struct vv_groups *g); /* on control, after loading: session timers run from now */
struct vv_group *vv_groups_find(struct vv_groups *g, struct vv_str id);
struct vv_group *vv_groups_add(struct vv_groups *g, struct vv_str id); /* NULL: no memory, or past the bound */
void vv_group_remove(struct vv_group *group);                          /* out of the table, DEAD */
void vv_group_unpin(struct vv_group *group);                           /* a write ended */
bool vv_groups_full(struct vv_groups *g, size_t more);

/* ---- group_member.c: members, protocols, what they subscribe to ---- */
int vv_str_own(struct vv_str *dst, struct vv_str s); /* copy with a NUL; frees what dst held */
int vv_bytes_own(struct vv_bytes *dst, struct vv_bytes b);
void vv_str_drop(struct vv_str *s);
void vv_bytes_drop(struct vv_bytes *b);
struct vv_group_member *vv_member_new(struct vv_group *group, struct vv_str id, struct vv_str instance,
                                      struct vv_str client_id, const char *client_host);
int vv_member_set_protocols(struct vv_group_member *m, const struct vv_group_protocol *v, int32_t n);
bool vv_member_matches(const struct vv_group_member *m, const struct JoinGroupRequest *r);
int vv_member_add(struct vv_group_member *m);      /* into its group; freed on an error */
void vv_member_discard(struct vv_group_member *m); /* one that was never added */
void vv_member_remove(struct vv_group_member *m, int err); /* out and freed; parked calls are answered err */
int vv_member_rename(struct vv_group_member *m, struct vv_str id);
struct vv_group_member *vv_group_member(struct vv_group *group, struct vv_str id);
struct vv_group_member *vv_group_instance(struct vv_group *group, struct vv_str instance);
/* The member that a request names, or the error it deserves: UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID. */
int vv_group_check_member(struct vv_group *group, struct vv_str id, struct vv_str instance,
                          struct vv_group_member **out);
void vv_member_park(struct vv_group_member *m, struct vv_group_call *join);
struct vv_group_call *vv_member_unpark(struct vv_group_member *m);
struct vv_bytes vv_member_metadata(const struct vv_group_member *m, struct vv_str protocol);
int vv_group_pending_add(struct vv_group *group, struct vv_str id, int32_t timeout_ms);
bool vv_group_pending_drop(struct vv_group *group, struct vv_str id);
bool vv_group_supports(struct vv_group *group, const struct JoinGroupRequest *r);
struct vv_str vv_group_select_protocol(struct vv_group *group);
void vv_group_find_topics(struct vv_group *group); /* fills topics, topics_known */
bool vv_group_subscribes(struct vv_group *group, struct vv_str topic);
bool vv_group_is_consumer(const struct vv_group *group);
int32_t vv_group_rebalance_ms(const struct vv_group *group);

/* ---- group_rebalance.c: the state machine ---- */
void vv_group_transition(struct vv_group *group, enum vv_group_state s);
void vv_group_rebalance(struct vv_group *group, const char *why); /* begin one, or go on with one */
void vv_group_prepare(struct vv_group *group, const char *why);
void vv_group_maybe_complete_join(struct vv_group *group);
void vv_group_answer_joined(struct vv_group_member *m, struct vv_group_call *c, bool with_members, struct vv_str leader,
                            bool skip_assignment);
void vv_group_propagate(struct vv_group *group, int err); /* answers every parked sync */
void vv_group_sync_received(struct vv_group_member *m);
void vv_member_renew(struct vv_group_member *m); /* restart its session timer */
void vv_member_session_fire(struct vv_timer *t);
void vv_group_pending_fire(struct vv_timer *t);
void vv_group_member_left(struct vv_group *group, const char *why);

/* ---- requests ---- */
void vv_groups_join(struct vv_groups *g, struct vv_group_call *c);      /* group_join.c */
void vv_groups_sync(struct vv_groups *g, struct vv_group_call *c);      /* group_session.c */
void vv_groups_heartbeat(struct vv_groups *g, struct vv_group_call *c);
void vv_groups_leave(struct vv_groups *g, struct vv_group_call *c);
void vv_groups_commit(struct vv_groups *g, struct vv_group_call *c);    /* group_commit.c */
void vv_groups_fetch(struct vv_groups *g, struct vv_group_call *c);     /* group_offsets.c */
void vv_groups_offset_delete(struct vv_groups *g, struct vv_group_call *c);
void vv_groups_list(struct vv_groups *g, struct vv_group_call *c);      /* group_admin.c */
void vv_groups_describe(struct vv_groups *g, struct vv_group_call *c);
void vv_groups_delete(struct vv_groups *g, struct vv_group_call *c);
void vv_group_answer_join_error(struct vv_group_call *c, struct vv_str member, int err);
void vv_group_answer_sync_error(struct vv_group_call *c, int err);

/* ---- group_offsets.c ---- */
struct vv_group_offset *vv_group_offset(struct vv_group *group, struct vv_str topic, int32_t partition, bool create);
struct vv_str vv_group_offset_topic(const struct vv_group_offset *o);
int32_t vv_group_offset_partition(const struct vv_group_offset *o);
void vv_group_offset_free(struct vv_group *group, struct vv_group_offset *o);
void vv_groups_expire(struct vv_groups *g);
/* Tombstones for the offsets that pick() picks, which are forgotten once the log took them; report, call, response and
 * index go with the last write. *wrote: there was one, so report follows. */
struct vv_group_drop {
    bool (*pick)(void *ctx, const struct vv_group_offset *o);
    void *ctx;
    bool with_group; /* the group's own record too */
    void (*report)(struct vv_group_write *w, int err);
    struct vv_group_call *call;
    void *response;
    int32_t index;
};
int vv_group_offsets_drop(struct vv_group *group, const struct vv_group_drop *d, bool *wrote);

/* ---- group_log.c: records and writes ---- */
struct vv_commit_item { /* one accepted partition of a commit */
    struct vv_group_offset *o;
    int16_t *error; /* in the response, while the call is open */
    int64_t offset, expire_ms;
    int32_t leader_epoch;
    struct vv_str metadata;
    struct vv_uuid topic_id;
};
struct vv_group_write {
    struct vv_produce_done d;
    struct vv_timer timeout;
    struct vv_group_write *next, *prev;
    struct vv_group *group;
    struct vv_batch_builder *batch;
    int32_t records;
    uint64_t seq;
    bool reported;
    /* Once: durable (0), failed, or overdue (the record may still come to be: finish() then hears the end). */
    void (*report)(struct vv_group_write *w, int err);
    void (*finish)(struct vv_group_write *w, int err); /* may be NULL: the end of the append itself */
    /* of the request */
    struct vv_group_call *call;
    void *response;
    int32_t generation, index;
    struct vv_str member;
    int64_t commit_ms;
    struct vv_commit_item *items;
    int32_t item_count;
};
struct vv_group_write *vv_group_write_new(struct vv_group *group);
int vv_group_write_add(struct vv_group_write *w, const uint8_t *key, size_t key_n, const uint8_t *value,
                       size_t value_n); /* value NULL: a tombstone */
/* 0: report (and finish) follow. Otherwise the write is gone; finish was called, report was not. */
int vv_group_write_submit(struct vv_group_write *w);
void vv_group_write_free(struct vv_group_write *w);
int vv_group_store(struct vv_group *group, bool staged, struct vv_group_write **out); /* a write with its metadata */
int vv_group_write_error(int err); /* what a client is told of a failed write (Kafka's translation) */

/* Encoded with the 16-bit version in front; *out is malloc'ed. */
int vv_group_encode(const struct vv_msg_schema *schema, int16_t version, const void *msg, uint8_t **out, size_t *n);
int vv_group_offset_key(struct vv_str group, struct vv_str topic, int32_t partition, uint8_t **out, size_t *n);
int vv_group_metadata_key(struct vv_str group, uint8_t **out, size_t *n);
int vv_group_metadata_value(struct vv_group *group, bool staged, uint8_t **out, size_t *n);
int vv_group_offset_value(const struct vv_commit_item *i, int64_t commit_ms, uint8_t **out, size_t *n);
int32_t vv_java_hash(struct vv_str s); /* String.hashCode() of UTF-8 */
int32_t vv_group_partition(struct vv_str group, int32_t partitions);

/* ---- group_load.c ---- */
int vv_groups_apply(struct vv_groups *g, const struct vv_record *r); /* one record, in log order */
void vv_groups_loaded(struct vv_groups *g);                          /* all records seen */
#endif

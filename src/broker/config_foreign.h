/* config_foreign.h — keys that Apache Kafka knows and that have no effect here: table and reasons
 * (config_foreign.c). */
#ifndef VARVE_BROKER_CONFIG_FOREIGN_H
#define VARVE_BROKER_CONFIG_FOREIGN_H
#include "config.h"

#define VV_FOREIGN_REASONS(X)                                                                      \
    X(KRAFT, "there is no KRaft controller quorum here")                                           \
    X(ZOOKEEPER, "there is no ZooKeeper here")                                                     \
    X(SECURITY, "TLS, SASL and ACLs are not here yet: EVERYBODY who reaches a listener may do "    \
                "everything")                                                                      \
    X(CLUSTER, "one broker holds every partition: replication is not here yet")                    \
    X(TXN, "transactions are not here yet")                                                        \
    X(SHARE, "share and streams groups are not here yet")                                          \
    X(KIP848, "the new consumer group protocol (KIP-848) is not here yet; the classic one is")     \
    X(QUOTA, "of quotas only those of clients by bytes are here")                                                            \
    X(JVM, "there is no JVM here to load it; metrics are at metrics.listener")                     \
    X(TIER, "the tier is built in, see tier.*")                                                    \
    X(OLD, "Apache Kafka removed it")                                                              \
    X(OWN, "Varve does this its own way")

enum vv_foreign_why {
#define VV_X(why, text) VV_WHY_##why,
    VV_FOREIGN_REASONS(VV_X)
#undef VV_X
        VV_WHY_COUNT
};
extern const char *const vv_foreign_reasons[VV_WHY_COUNT];

struct vv_foreign_key {
    const char *name;
    enum vv_config_type type;
    const char *initial; /* Kafka's default; NULL = unset */
    enum vv_foreign_why why;
};
extern const struct vv_foreign_key vv_foreign_keys[];
extern const size_t vv_foreign_key_count;
const struct vv_foreign_key *vv_foreign_find(const char *name); /* NULL: not one of them */
/* Whether name belongs to a family known by its prefix (listener.name.*, rsm.config.*, …). */
bool vv_foreign_family(const char *name, enum vv_foreign_why *why);
#endif

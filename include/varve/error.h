/* error.h — every error a Varve function can return, in two tables.
 *
 * Functions return `int`: 0 is success, a positive value is a Kafka protocol error code (it may be sent to
 * a client as it is), a negative value below -1 is local and is mapped by vv_err_kafka() before it leaves.
 * -1 is Kafka's own UNKNOWN_SERVER_ERROR. A function that can fail for reasons a person must act on also
 * takes a `struct vv_error *` (may be NULL) and says there what happened, why, and what to do next.
 *
 * Source of the codes: Apache Kafka protocol guide, "Error Codes". */
#ifndef VARVE_ERROR_H
#define VARVE_ERROR_H
#include <stdbool.h>
#include <stddef.h>

#define VV_KAFKA_ERRORS(X)                                                                         \
    X(UNKNOWN_SERVER_ERROR, -1)                                                                    \
    X(NONE, 0)                                                                                     \
    X(OFFSET_OUT_OF_RANGE, 1)                                                                      \
    X(CORRUPT_MESSAGE, 2)                                                                          \
    X(UNKNOWN_TOPIC_OR_PARTITION, 3)                                                               \
    X(INVALID_FETCH_SIZE, 4)                                                                       \
    X(LEADER_NOT_AVAILABLE, 5)                                                                     \
    X(NOT_LEADER_OR_FOLLOWER, 6)                                                                   \
    X(REQUEST_TIMED_OUT, 7)                                                                        \
    X(BROKER_NOT_AVAILABLE, 8)                                                                     \
    X(REPLICA_NOT_AVAILABLE, 9)                                                                    \
    X(MESSAGE_TOO_LARGE, 10)                                                                       \
    X(STALE_CONTROLLER_EPOCH, 11)                                                                  \
    X(OFFSET_METADATA_TOO_LARGE, 12)                                                               \
    X(NETWORK_EXCEPTION, 13)                                                                       \
    X(COORDINATOR_LOAD_IN_PROGRESS, 14)                                                            \
    X(COORDINATOR_NOT_AVAILABLE, 15)                                                               \
    X(NOT_COORDINATOR, 16)                                                                         \
    X(INVALID_TOPIC_EXCEPTION, 17)                                                                 \
    X(RECORD_LIST_TOO_LARGE, 18)                                                                   \
    X(NOT_ENOUGH_REPLICAS, 19)                                                                     \
    X(NOT_ENOUGH_REPLICAS_AFTER_APPEND, 20)                                                        \
    X(INVALID_REQUIRED_ACKS, 21)                                                                   \
    X(ILLEGAL_GENERATION, 22)                                                                      \
    X(INCONSISTENT_GROUP_PROTOCOL, 23)                                                             \
    X(INVALID_GROUP_ID, 24)                                                                        \
    X(UNKNOWN_MEMBER_ID, 25)                                                                       \
    X(INVALID_SESSION_TIMEOUT, 26)                                                                 \
    X(REBALANCE_IN_PROGRESS, 27)                                                                   \
    X(INVALID_COMMIT_OFFSET_SIZE, 28)                                                              \
    X(TOPIC_AUTHORIZATION_FAILED, 29)                                                              \
    X(GROUP_AUTHORIZATION_FAILED, 30)                                                              \
    X(CLUSTER_AUTHORIZATION_FAILED, 31)                                                            \
    X(INVALID_TIMESTAMP, 32)                                                                       \
    X(UNSUPPORTED_SASL_MECHANISM, 33)                                                              \
    X(ILLEGAL_SASL_STATE, 34)                                                                      \
    X(UNSUPPORTED_VERSION, 35)                                                                     \
    X(TOPIC_ALREADY_EXISTS, 36)                                                                    \
    X(INVALID_PARTITIONS, 37)                                                                      \
    X(INVALID_REPLICATION_FACTOR, 38)                                                              \
    X(INVALID_REPLICA_ASSIGNMENT, 39)                                                              \
    X(INVALID_CONFIG, 40)                                                                          \
    X(NOT_CONTROLLER, 41)                                                                          \
    X(INVALID_REQUEST, 42)                                                                         \
    X(UNSUPPORTED_FOR_MESSAGE_FORMAT, 43)                                                          \
    X(POLICY_VIOLATION, 44)                                                                        \
    X(OUT_OF_ORDER_SEQUENCE_NUMBER, 45)                                                            \
    X(DUPLICATE_SEQUENCE_NUMBER, 46)                                                               \
    X(INVALID_PRODUCER_EPOCH, 47)                                                                  \
    X(INVALID_TXN_STATE, 48)                                                                       \
    X(INVALID_PRODUCER_ID_MAPPING, 49)                                                             \
    X(INVALID_TRANSACTION_TIMEOUT, 50)                                                             \
    X(CONCURRENT_TRANSACTIONS, 51)                                                                 \
    X(TRANSACTION_COORDINATOR_FENCED, 52)                                                          \
    X(TRANSACTIONAL_ID_AUTHORIZATION_FAILED, 53)                                                   \
    X(SECURITY_DISABLED, 54)                                                                       \
    X(OPERATION_NOT_ATTEMPTED, 55)                                                                 \
    X(KAFKA_STORAGE_ERROR, 56)                                                                     \
    X(LOG_DIR_NOT_FOUND, 57)                                                                       \
    X(SASL_AUTHENTICATION_FAILED, 58)                                                              \
    X(UNKNOWN_PRODUCER_ID, 59)                                                                     \
    X(REASSIGNMENT_IN_PROGRESS, 60)                                                                \
    X(NON_EMPTY_GROUP, 68)                                                                         \
    X(GROUP_ID_NOT_FOUND, 69)                                                                      \
    X(FETCH_SESSION_ID_NOT_FOUND, 70)                                                              \
    X(INVALID_FETCH_SESSION_EPOCH, 71)                                                             \
    X(LISTENER_NOT_FOUND, 72)                                                                      \
    X(TOPIC_DELETION_DISABLED, 73)                                                                 \
    X(FENCED_LEADER_EPOCH, 74)                                                                     \
    X(UNKNOWN_LEADER_EPOCH, 75)                                                                    \
    X(UNSUPPORTED_COMPRESSION_TYPE, 76)                                                            \
    X(STALE_BROKER_EPOCH, 77)                                                                      \
    X(OFFSET_NOT_AVAILABLE, 78)                                                                    \
    X(MEMBER_ID_REQUIRED, 79)                                                                      \
    X(PREFERRED_LEADER_NOT_AVAILABLE, 80)                                                          \
    X(GROUP_MAX_SIZE_REACHED, 81)                                                                  \
    X(FENCED_INSTANCE_ID, 82)                                                                      \
    X(ELIGIBLE_LEADERS_NOT_AVAILABLE, 83)                                                          \
    X(ELECTION_NOT_NEEDED, 84)                                                                     \
    X(NO_REASSIGNMENT_IN_PROGRESS, 85)                                                             \
    X(GROUP_SUBSCRIBED_TO_TOPIC, 86)                                                               \
    X(INVALID_RECORD, 87)                                                                          \
    X(UNSTABLE_OFFSET_COMMIT, 88)                                                                  \
    X(THROTTLING_QUOTA_EXCEEDED, 89)                                                               \
    X(PRODUCER_FENCED, 90)                                                                         \
    X(RESOURCE_NOT_FOUND, 91)                                                                      \
    X(DUPLICATE_RESOURCE, 92)                                                                      \
    X(UNACCEPTABLE_CREDENTIAL, 93)                                                                 \
    X(INCONSISTENT_VOTER_SET, 94)                                                                  \
    X(INVALID_UPDATE_VERSION, 95)                                                                  \
    X(FEATURE_UPDATE_FAILED, 96)                                                                   \
    X(UNKNOWN_TOPIC_ID, 100)                                                                       \
    X(INCONSISTENT_TOPIC_ID, 103)                                                                  \
    X(TRANSACTIONAL_ID_NOT_FOUND, 105)                                                             \
    X(FETCH_SESSION_TOPIC_ID_ERROR, 106)                                                           \
    X(INELIGIBLE_REPLICA, 107)                                                                     \
    X(OFFSET_MOVED_TO_TIERED_STORAGE, 109)                                                         \
    X(FENCED_MEMBER_EPOCH, 110)                                                                    \
    X(STALE_MEMBER_EPOCH, 113)                                                                     \
    X(MISMATCHED_ENDPOINT_TYPE, 114)                                                               \
    X(UNSUPPORTED_ENDPOINT_TYPE, 115)

/* Local conditions: what happened | the Kafka code a client is told | a short text. */
#define VV_LOCAL_ERRORS(X)                                                                         \
    X(E_IO, -1001, KAFKA_STORAGE_ERROR, "input/output error")                                      \
    X(E_NOSPC, -1002, KAFKA_STORAGE_ERROR, "no space left on device")                              \
    X(E_NOENT, -1003, UNKNOWN_SERVER_ERROR, "no such file or object")                              \
    X(E_EXIST, -1004, UNKNOWN_SERVER_ERROR, "already exists")                                      \
    X(E_CORRUPT, -1005, CORRUPT_MESSAGE, "stored bytes are damaged")                               \
    X(E_NOMEM, -1006, KAFKA_STORAGE_ERROR, "out of memory")                                        \
    X(E_TIMEOUT, -1007, REQUEST_TIMED_OUT, "timed out")                                            \
    X(E_AGAIN, -1008, KAFKA_STORAGE_ERROR, "temporarily unavailable, retry")                       \
    X(E_ACCESS, -1009, KAFKA_STORAGE_ERROR, "access denied")                                       \
    X(E_CONFLICT, -1010, KAFKA_STORAGE_ERROR, "precondition failed: another writer was here")      \
    X(E_UNSUPPORTED, -1011, UNKNOWN_SERVER_ERROR, "not supported by this backend")                 \
    X(E_CONFIG, -1012, INVALID_CONFIG, "invalid configuration")                                    \
    X(E_USAGE, -1013, INVALID_REQUEST, "usage error")                                              \
    X(E_OFFLINE, -1014, KAFKA_STORAGE_ERROR, "log directory is offline")                           \
    X(E_LIMIT, -1015, INVALID_REQUEST, "a limit was exceeded")                                     \
    X(E_PROTO, -1016, INVALID_REQUEST, "malformed bytes")                                          \
    X(E_STATE, -1017, UNKNOWN_SERVER_ERROR, "not possible in this state")                          \
    X(E_SHUTDOWN, -1018, NOT_LEADER_OR_FOLLOWER, "shutting down")                                  \
    X(E_KEY, -1019, KAFKA_STORAGE_ERROR, "an encryption key is missing or wrong")                  \
    X(E_NOFILE, -1020, KAFKA_STORAGE_ERROR, "out of file descriptors")

enum vv_err {
#define VV_X(name, code) VV_##name = (code),
    VV_KAFKA_ERRORS(VV_X)
#undef VV_X
#define VV_X(name, code, kafka, text) VV_##name = (code),
    VV_LOCAL_ERRORS(VV_X)
#undef VV_X
};
#define VV_OK VV_NONE

/* A message for a person: what happened, why, what next. 512 bytes, always NUL-terminated. */
struct vv_error {
    int code;
    char text[512];
};

const char *vv_err_name(int err);   /* "NONE", "CORRUPT_MESSAGE", "E_IO", "?" */
int vv_err_kafka(int err);          /* the code a client is told; identity for Kafka codes */
int vv_err_from_errno(int errnum);  /* ENOSPC/EDQUOT -> E_NOSPC, ENOENT -> E_NOENT, ...; default E_IO */
/* Memory or descriptors ran out: nothing was tried, it passes by itself, and it says nothing about the disk. */
static inline bool vv_err_scarce(int err)
{
    return err == VV_E_NOMEM || err == VV_E_NOFILE;
}
/* Fill *e (if not NULL) and return code. */
int vv_error_set(struct vv_error *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#endif

/* config_keys.h — THE table of configuration keys that mean something here.
 *
 * One row makes the field of struct vv_broker_config (config.h), the parser's type and range
 * check, the default, the entry of config/CONFIGURATION.md and the answer to DescribeConfigs.
 * Keys of Apache Kafka that are known but have no effect yet are in config_foreign.c, with the
 * reason.
 *
 * Row: X(field, "key", type, "default" or NULL = unset, min, max, "choices" or NULL, flags, "what
 * it does") The field's C type follows the type: BOOLEAN bool; INT, SHORT int32_t; LONG int64_t;
 * DOUBLE double; STRING, LIST, PASSWORD const char * (NULL = unset). min and max hold for
 * numbers. choices: words separated by '|'. Flags: 0, or VV_KEY_* of config.h. SECTION(title)
 * opens a chapter of the reference. */
#ifndef VARVE_BROKER_CONFIG_KEYS_H
#define VARVE_BROKER_CONFIG_KEYS_H

#define VV_I32 INT32_MAX
#define VV_I64 INT64_MAX
#define VV_DYN VV_KEY_DYNAMIC

#define VV_CONFIG_KEYS(SECTION, X)                                                                 \
    SECTION("The node and its directories")                                                        \
    X(node_id, "node.id", INT, "1", 0, VV_I32, NULL, 0,                                            \
      "The broker's number; recorded in the data directory and in the bucket.")                    \
    X(broker_id, "broker.id", INT, "-1", -1, VV_I32, NULL, 0,                                      \
      "The old name of node.id; node.id wins, -1 leaves it to node.id.")                           \
    X(broker_rack, "broker.rack", STRING, NULL, 0, 0, NULL, 0,                                     \
      "The rack or zone the broker stands in; shown to clients.")                                  \
    X(data_dir, "data.dir", STRING, "./varve-data", 0, 0, NULL, 0,                                 \
      "One directory for everything: sets log.dirs to DIR/log and the default tier to "            \
      "fs:DIR/tier.")                                                                              \
    X(log_dirs, "log.dirs", STRING, NULL, 0, 0, NULL, 0,                                           \
      "The directory of the partitions' logs; exactly one. Set without data.dir, the default "     \
      "tier is beside it, with -tier appended to its name.")                                       \
    X(log_dir_key, "log.dir", STRING, NULL, 0, 0, NULL, 0, "The old name of log.dirs.")            \
    X(config_unknown, "config.unknown", STRING, "refuse", 0, 0, "refuse|warn", 0,                  \
      "What to do with a key that nobody knows: refuse to start, or warn.")                        \
    SECTION("Listeners and connections")                                                           \
    X(listeners, "listeners", LIST, "PLAINTEXT://127.0.0.1:9092", 0, 0, NULL, 0,                   \
      "Where to listen: NAME://HOST:PORT, separated by commas. An empty host is every address, "   \
      "port 0 is any free port. Only PLAINTEXT so far.")                                           \
    X(advertised_listeners, "advertised.listeners", STRING, NULL, 0, 0, NULL, 0,                   \
      "What clients are told to connect to, per listener name; unset or port 0: as bound.")        \
    X(listener_security_protocol_map, "listener.security.protocol.map", STRING,                    \
      "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL", 0, 0, NULL,   \
      0, "The protocol of each listener name.")                                                    \
    X(inter_broker_listener_name, "inter.broker.listener.name", STRING, NULL, 0, 0, NULL, 0,       \
      "The listener other brokers use; must be one of listeners.")                                 \
    X(reactors, "reactors", INT, "0", 0, 64, NULL, 0,                                              \
      "Network threads; 0: num.network.threads if that is set, else one per core.")                \
    X(num_network_threads, "num.network.threads", INT, "0", 0, 64, NULL, 0,                        \
      "Kafka's name of reactors.")                                                                 \
    X(num_io_threads, "num.io.threads", INT, "8", 1, 256, NULL, 0,                                 \
      "Threads for work that may wait for the disk.")                                              \
    X(num_recovery_threads_per_data_dir, "num.recovery.threads.per.data.dir", INT, "2", 1, 256,    \
      NULL, 0, "Logs opened and recovered in parallel at start.")                                  \
    X(socket_request_max_bytes, "socket.request.max.bytes", INT, "104857600", 1024, VV_I32, NULL,  \
      0, "The largest request; a larger one closes its connection.")                               \
    X(socket_send_buffer_bytes, "socket.send.buffer.bytes", INT, "-1", -1, VV_I32, NULL, 0,        \
      "SO_SNDBUF of a connection; -1: the kernel's choice.")                                       \
    X(socket_receive_buffer_bytes, "socket.receive.buffer.bytes", INT, "-1", -1, VV_I32, NULL, 0,  \
      "SO_RCVBUF of a connection; -1: the kernel's choice.")                                       \
    X(socket_listen_backlog_size, "socket.listen.backlog.size", INT, "512", 1, 65535, NULL, 0,     \
      "Connections that may wait to be accepted.")                                                 \
    X(connections_max_idle_ms, "connections.max.idle.ms", LONG, "600000", -1, VV_I64, NULL, 0,     \
      "A connection without traffic for this long is closed; negative: never.")                    \
    X(max_connections, "max.connections", INT, "2147483647", 0, VV_I32, NULL, 0,                   \
      "Connections at a time.")                                                                    \
    X(max_connections_per_ip, "max.connections.per.ip", INT, "2147483647", 0, VV_I32, NULL, 0,     \
      "Connections at a time from one address.")                                                   \
    X(metrics_listener, "metrics.listener", STRING, "127.0.0.1:9464", 0, 0, NULL, 0,               \
      "HOST:PORT of /metrics, /healthz and /readyz; off switches it off.")                         \
    SECTION("Topics")                                                                              \
    X(auto_create_topics_enable, "auto.create.topics.enable", BOOLEAN, "true", 0, 0, NULL, 0,      \
      "Whether asking for a topic that is not there makes it.")                                    \
    X(delete_topic_enable, "delete.topic.enable", BOOLEAN, "true", 0, 0, NULL, 0,                  \
      "Whether topics can be deleted.")                                                            \
    X(num_partitions, "num.partitions", INT, "1", 1, 100000, NULL, 0,                              \
      "Partitions of a topic that does not say.")                                                  \
    X(default_replication_factor, "default.replication.factor", INT, "1", 1, 32767, NULL, 0,       \
      "Copies of a topic that does not say; more than there are brokers is refused.")              \
    X(min_insync_replicas, "min.insync.replicas", INT, "1", 1, VV_I32, NULL, VV_DYN,               \
      "In-sync copies an acks=all write needs.")                                                   \
    X(message_max_bytes, "message.max.bytes", INT, "1048588", 0, VV_I32, NULL, VV_DYN,             \
      "The largest record batch.")                                                                 \
    X(fetch_max_bytes, "fetch.max.bytes", INT, "57671680", 1024, VV_I32, NULL, 0,                  \
      "The most bytes one Fetch answer carries, whatever the client asks.")                        \
    X(fetch_near_rtt_us, "fetch.near.rtt.us", INT, "100", 0, VV_I32, NULL, 0,                      \
      "Whose way to the broker and back takes less than this (as the kernel measured it) gets "    \
      "at most 1 MiB of local segments in memory at a time, which costs half the CPU of "          \
      "large answers. Not who asks for fetch.min.bytes above 64 KiB. 0: nobody.")                  \
    X(max_request_partition_size_limit, "max.request.partition.size.limit", INT, "2000", 1,        \
      VV_I32, NULL, 0, "Partitions one DescribeTopicPartitions answer lists.")                     \
    X(max_incremental_fetch_session_cache_slots, "max.incremental.fetch.session.cache.slots", INT, \
      "1000", 0, 1000000, NULL, 0, "Fetch sessions remembered at a time.")                         \
    X(compression_type, "compression.type", STRING, "producer", 0, 0,                              \
      "producer|uncompressed|gzip|snappy|lz4|zstd", VV_DYN,                                        \
      "Batches are stored as the producer sent them; only producer is there so far.")              \
    X(unclean_leader_election_enable, "unclean.leader.election.enable", BOOLEAN, "false", 0, 0,    \
      NULL, VV_DYN, "Whether a copy that is behind may lead; of no effect with one copy.")         \
    SECTION("The local log")                                                                       \
    X(log_segment_bytes, "log.segment.bytes", INT, "1073741824", 65536, VV_I32, NULL, VV_DYN,      \
      "A segment of this size is closed, and with that ready for the tier.")                       \
    X(log_roll_ms, "log.roll.ms", LONG, NULL, 1, VV_I64, NULL, VV_DYN,                             \
      "A segment of this age is closed; wins over log.roll.hours.")                                \
    X(log_roll_hours, "log.roll.hours", INT, "168", 1, VV_I32, NULL, 0,                            \
      "A segment of this age is closed.")                                                          \
    X(log_roll_jitter_ms, "log.roll.jitter.ms", LONG, NULL, 0, VV_I64, NULL, VV_DYN,               \
      "Spreads the closing by age; wins over log.roll.jitter.hours.")                              \
    X(log_roll_jitter_hours, "log.roll.jitter.hours", INT, "0", 0, VV_I32, NULL, 0,                \
      "Spreads the closing by age.")                                                               \
    X(log_index_interval_bytes, "log.index.interval.bytes", INT, "4096", 0, VV_I32, NULL, VV_DYN,  \
      "Bytes between two entries of a segment's offset index.")                                    \
    X(log_index_size_max_bytes, "log.index.size.max.bytes", INT, "10485760", 4, VV_I32, NULL,      \
      VV_DYN, "A segment whose index has this size is closed.")                                    \
    X(log_flush_acks, "log.flush.acks", STRING, "all", 0, 0, "all|leader|none", 0,                 \
      "Which answers to producers wait for the disk: all: acks=all that rests on one copy; "       \
      "leader: acks=1 too; none: leave it to the kernel, as Apache Kafka does.")                   \
    X(log_flush_interval_messages, "log.flush.interval.messages", LONG, "9223372036854775807", 1,  \
      VV_I64, NULL, VV_DYN, "Flush after this many records.")                                      \
    X(log_flush_interval_ms, "log.flush.interval.ms", LONG, NULL, 0, VV_I64, NULL, VV_DYN,         \
      "Flush after this time; unset: log.flush.scheduler.interval.ms.")                            \
    X(log_flush_scheduler_interval_ms, "log.flush.scheduler.interval.ms", LONG,                    \
      "9223372036854775807", 0, VV_I64, NULL, 0, "How often to look for something to flush.")      \
    X(log_preallocate, "log.preallocate", BOOLEAN, "false", 0, 0, NULL, VV_DYN,                    \
      "Accepted; segments grow as they are written.")                                              \
    X(log_message_timestamp_type, "log.message.timestamp.type", STRING, "CreateTime", 0, 0,        \
      "CreateTime|LogAppendTime", VV_DYN, "Whose clock stamps a record: the producer's or ours.")  \
    X(log_message_timestamp_before_max_ms, "log.message.timestamp.before.max.ms", LONG,            \
      "9223372036854775807", 0, VV_I64, NULL, VV_DYN,                                              \
      "How far a record's time may lie in the past.")                                              \
    X(log_message_timestamp_after_max_ms, "log.message.timestamp.after.max.ms", LONG, "3600000",   \
      0, VV_I64, NULL, VV_DYN, "How far a record's time may lie in the future.")                   \
    X(producer_id_expiration_ms, "producer.id.expiration.ms", INT, "86400000", 1, VV_I32, NULL,    \
      VV_DYN, "An idempotent producer silent for this long is forgotten.")                         \
    SECTION("Retention")                                                                           \
    X(log_retention_ms, "log.retention.ms", LONG, "-1", -1, VV_I64, NULL, VV_DYN,                  \
      "How long records are kept, hot and cold together; -1: for ever. Wins over minutes, which "  \
      "win over hours.")                                                                           \
    X(log_retention_minutes, "log.retention.minutes", INT, NULL, -1, VV_I32, NULL, 0,              \
      "How long records are kept.")                                                                \
    X(log_retention_hours, "log.retention.hours", INT, NULL, -1, VV_I32, NULL, 0,                  \
      "How long records are kept.")                                                                \
    X(log_retention_bytes, "log.retention.bytes", LONG, "-1", -1, VV_I64, NULL, VV_DYN,            \
      "How much of a partition is kept, hot and cold together; -1: everything.")                   \
    X(log_local_retention_ms, "log.local.retention.ms", LONG, "86400000", -2, VV_I64, NULL,        \
      VV_DYN, "How long the local copy of what is in the bucket stays; -2: as log.retention.ms.")  \
    X(log_local_retention_bytes, "log.local.retention.bytes", LONG, "1073741824", -2, VV_I64,      \
      NULL, VV_DYN, "How much of a partition stays local; -2: as log.retention.bytes.")            \
    X(log_retention_check_interval_ms, "log.retention.check.interval.ms", LONG, "300000", 1,       \
      VV_I64, NULL, 0, "The longest time between two looks; retention is driven by events.")       \
    X(log_segment_delete_delay_ms, "log.segment.delete.delay.ms", LONG, "60000", 0, VV_I64, NULL,  \
      VV_DYN, "Accepted; a local file goes at once, whoever reads it ends.")                       \
    X(log_cleanup_policy, "log.cleanup.policy", LIST, "delete", 0, 0, "delete|compact", VV_DYN,    \
      "delete; compact is there for internal topics only so far.")                                 \
    X(log_cleaner_enable, "log.cleaner.enable", BOOLEAN, "true", 0, 0, NULL, 0,                    \
      "Compaction of internal topics.")                                                            \
    X(log_cleaner_delete_retention_ms, "log.cleaner.delete.retention.ms", LONG, "86400000", 0,     \
      VV_I64, NULL, VV_DYN, "How long a tombstone survives compaction.")                           \
    X(log_cleaner_min_compaction_lag_ms, "log.cleaner.min.compaction.lag.ms", LONG, "0", 0,        \
      VV_I64, NULL, VV_DYN, "A record younger than this is not compacted away.")                   \
    X(log_cleaner_max_compaction_lag_ms, "log.cleaner.max.compaction.lag.ms", LONG,                \
      "9223372036854775807", 1, VV_I64, NULL, VV_DYN, "A record older than this is compacted.")    \
    X(log_cleaner_min_cleanable_ratio, "log.cleaner.min.cleanable.ratio", DOUBLE, "0.5", 0, 1,     \
      NULL, VV_DYN, "The share of new bytes that starts a compaction.")                            \
    SECTION("The remote tier")                                                                     \
    X(remote_log_storage_system_enable, "remote.log.storage.system.enable", BOOLEAN, "true", 0, 0, \
      NULL, 0, "false switches the tier off.")                                                     \
    X(tier_url, "tier.url", STRING, NULL, 0, 0, NULL, 0,                                           \
      "Where closed segments go: s3://BUCKET/PREFIX or fs:DIR; unset: fs:DIR/tier of data.dir; "   \
      "off: nowhere.")                                                                             \
    X(tier_default_enable, "tier.default.enable", BOOLEAN, "true", 0, 0, NULL, 0,                  \
      "Whether a new topic tiers that does not say (remote.storage.enable).")                      \
    X(tier_upload_interval_ms, "tier.upload.interval.ms", LONG, "3600000", 1, VV_I64, NULL, VV_DYN, \
      "A quiet topic's open segment is closed and uploaded after this long.")                      \
    X(tier_verify, "tier.verify", STRING, "footer", 0, 0, "footer|full", VV_DYN,                   \
      "How an upload is checked before the local copy may go: its checksums and footer, or "       \
      "every byte read back.")                                                                     \
    X(tier_compression, "tier.compression", STRING, "none", 0, 0, "none|zstd", 0,                  \
      "How new objects' blocks are compressed in the bucket, on top of what producers did.")       \
    X(tier_encryption, "tier.encryption", STRING, "none", 0, 0, "none|aes-256-gcm", 0,             \
      "How new objects are encrypted in the bucket; needs tier.encryption.keys.file.")             \
    X(tier_encryption_keys_file, "tier.encryption.keys.file", STRING, NULL, 0, 0, NULL, 0,         \
      "The keys that wrap the objects' own keys, one `ID BASE64` a line (32 bytes), readable by "  \
      "the broker only. Read again when it changes; keys that objects name must stay in it.")      \
    X(tier_encryption_key_id, "tier.encryption.key.id", STRING, NULL, 0, 0, NULL, 0,               \
      "The id of the key that new objects use; unset: the file's last.")                           \
    X(tier_upload_threads, "tier.upload.threads", INT, "2", 1, 256, NULL, 0,                       \
      "Segments uploaded in parallel.")                                                            \
    X(tier_threads_nice, "tier.threads.nice", INT, "10", 0, 19, NULL, 0,                           \
      "How much nicer (setpriority) the tier's threads are than those that serve clients: "        \
      "uploads, housekeeping, what comes from the bucket and the disk cache. It matters only "     \
      "where the processor is short. 0: as the others.")                                           \
    X(tier_fetch_deadline_ms, "tier.fetch.deadline.ms", LONG, "30000", 1, VV_I64, NULL, VV_DYN,    \
      "A cold read that the store has not answered by then fails with KAFKA_STORAGE_ERROR.")       \
    X(tier_cache_bytes, "tier.cache.bytes", LONG, "134217728", 1048576, VV_I64, NULL, VV_DYN,      \
      "Memory for chunks read from the bucket.")                                                   \
    X(tier_cache_dir, "tier.cache.dir", STRING, NULL, 0, 0, NULL, 0,                               \
      "Where the disk cache lies; unset: DIR/cache of data.dir, or log.dirs with -cache appended. " \
      "One broker a directory; it may be emptied while the broker is off.")                        \
    X(tier_cache_disk_bytes, "tier.cache.disk.bytes", LONG, "-1", -1, VV_I64, NULL, VV_DYN,        \
      "Disk for what was read from the bucket more than once; freed before producers are slowed "  \
      "down (tier.disk.reserve). -1: a tenth of the file system, at most 16 GiB, and nothing when " \
      "the tier is a directory itself; 0: off.")                                                   \
    X(tier_chunk_bytes, "tier.chunk.bytes", INT, "16777216", 65536, 1073741824, NULL, 0,           \
      "Most bytes of one ranged read from the bucket. The first of a reader are small; they grow " \
      "while it reads on.")                                                                        \
    X(tier_readahead_chunks, "tier.readahead.chunks", INT, "16", 0, 1024, NULL, VV_DYN,            \
      "A sequential reader has at most this many times tier.chunk.bytes ahead, less where that "   \
      "brings nothing or others read too. 0: no read-ahead.")                                      \
    X(tier_delete_grace_ms, "tier.delete.grace.ms", LONG, "604800000", 0, VV_I64, NULL, VV_DYN,    \
      "Deleted segments and topics can be undeleted for this long.")                               \
    X(tier_scrub_interval_ms, "tier.scrub.interval.ms", LONG, "604800000", 0, VV_I64, NULL,        \
      VV_DYN, "Every closed segment of a tiered topic is read and checked this often, as far as "  \
      "the budgets allow, on the disk and in the bucket, and mended from the other side; 0: "      \
      "never.")                                                                                    \
    X(tier_scrub_bytes_per_second, "tier.scrub.bytes.per.second", LONG, "262144", 0, VV_I64, NULL, \
      VV_DYN, "Budget for reading objects; the default is 22 GB a day. 0: they are not checked.")  \
    X(tier_scrub_local_bytes_per_second, "tier.scrub.local.bytes.per.second", LONG, "4194304", 0,  \
      VV_I64, NULL, VV_DYN, "Budget for reading local segments. 0: they are not checked.")         \
    X(tier_gc_interval_ms, "tier.gc.interval.ms", LONG, "86400000", 0, VV_I64, NULL, 0,            \
      "Each partition's objects are listed this often, and what is proven to be part of no log is "\
      "collected; 0: never.")                                                                      \
    X(tier_gc_age_ms, "tier.gc.age.ms", LONG, "86400000", 1, VV_I64, NULL, 0,                      \
      "Nothing younger is collected: longer than any upload takes.")                               \
    X(tier_delete_max_objects_per_second, "tier.delete.max.objects.per.second", LONG,              \
      "9223372036854775807", 1, VV_I64, NULL, VV_DYN,                                              \
      "Rate limit of deleting expired segments and the objects of deleted topics.")                \
    X(tier_merge_segments_min, "tier.merge.segments.min", INT, "16", 0, 512, NULL, VV_DYN,         \
      "At least this many neighbouring small objects become one, long after they were written; "   \
      "0: never.")                                                                                 \
    X(tier_merge_bytes_max, "tier.merge.bytes.max", LONG, "16777216", 65536, 268435456, NULL,      \
      VV_DYN, "Bytes of such an object, never above the topic's segment.bytes; what is above half "\
      "of it counts as big and is left alone.")                                                    \
    X(tier_merge_age_ms, "tier.merge.age.ms", LONG, "86400000", 0, VV_I64, NULL, VV_DYN,           \
      "Only objects sealed this long ago are merged, and never before tier.delete.grace.ms.")      \
    X(tier_merge_span_ms, "tier.merge.span.ms", LONG, "2592000000", 1, VV_I64, NULL, VV_DYN,       \
      "Most time between the seals of the first and the last object that are merged: retention "   \
      "and a restore as of a time do not divide objects.")                                         \
    X(tier_merge_max_bytes_per_second, "tier.merge.max.bytes.per.second", LONG, "8388608", 1,      \
      VV_I64, NULL, VV_DYN, "Bytes read and written by merging, per second.")                      \
    X(tier_disk_reserve, "tier.disk.reserve", LONG, "-1", -1, VV_I64, NULL, 0,                     \
      "Free bytes below which producers are refused; below twice that they are throttled and "     \
      "local copies of what is in the bucket go before their time. -1: 1 GiB or 5 % of the disk, " \
      "whichever is more, less on small disks.")                                                   \
    X(tier_take_over, "tier.take.over", BOOLEAN, "false", 0, 0, NULL, 0,                           \
      "Claim a bucket that another live writer holds. Only when that writer is surely dead.")      \
    X(tier_restore_url, "tier.restore.url", STRING, NULL, 0, 0, NULL, 0,                           \
      "Somebody else's bucket, only read: a new cluster in an empty directory and an empty "       \
      "tier.url begins with its topics (varve broker --restore). Only for that first start.")      \
    X(tier_restore_as_of_ms, "tier.restore.as.of.ms", LONG, "-1", -1, VV_I64, NULL, 0,             \
      "With tier.restore.url: its state as of this time, Unix milliseconds (--as-of); -1: the "    \
      "newest.")                                                                                   \
    X(tier_replica, "tier.replica", BOOLEAN, "false", 0, 0, NULL, 0,                               \
      "A read-only replica: tier.url is somebody else's bucket, which is followed and never "      \
      "written to (varve broker --replica). Producers and changes of topics are refused.")         \
    X(tier_replica_interval_ms, "tier.replica.interval.ms", LONG, "10000", 10, 86400000, NULL, 0,  \
      "How long a replica waits between two looks at the bucket: each asks a HEAD of the list of " \
      "topics and, per partition, a HEAD of its manifest and a LIST.")                             \
    X(tier_hydrate_max_bytes_per_second, "tier.hydrate.max.bytes.per.second", LONG, "67108864", 1, \
      VV_I64, NULL, VV_DYN, "How fast objects of the bucket restored from, or of one that is "     \
      "migrated, are copied.")                                                                     \
    X(tier_migrate_url, "tier.migrate.url", STRING, NULL, 0, 0, NULL, VV_DYN,                      \
      "The bucket moves there while the broker runs: copied, proven, switched (varve tier "        \
      "migrate). It must be empty, or a half-done migration of this cluster.")                     \
    X(tier_origin_s3_endpoint, "tier.origin.s3.endpoint", STRING, NULL, 0, 0, NULL, 0,             \
      "The endpoint of the bucket restored from or migrated to; unset, like the next ones: as "    \
      "tier.s3.*.")                                                                                \
    X(tier_origin_s3_region, "tier.origin.s3.region", STRING, NULL, 0, 0, NULL, 0,                 \
      "Its region.")                                                                               \
    X(tier_origin_s3_ca_file, "tier.origin.s3.ca.file", STRING, NULL, 0, 0, NULL, 0,               \
      "Certificates to trust for its endpoint, PEM.")                                              \
    X(tier_origin_s3_access_key_id, "tier.origin.s3.access.key.id", STRING, NULL, 0, 0, NULL, 0,   \
      "Access key for it; reading and listing is enough.")                                         \
    X(tier_origin_s3_secret_access_key, "tier.origin.s3.secret.access.key", PASSWORD, NULL, 0, 0,  \
      NULL, 0, "Secret key for it.")                                                               \
    X(tier_origin_s3_session_token, "tier.origin.s3.session.token", PASSWORD, NULL, 0, 0, NULL, 0, \
      "Session token for it.")                                                                     \
    X(tier_s3_endpoint, "tier.s3.endpoint", STRING, NULL, 0, 0, NULL, 0,                           \
      "http[s]://HOST[:PORT] of an S3-compatible store; unset: AWS.")                              \
    X(tier_s3_region, "tier.s3.region", STRING, NULL, 0, 0, NULL, 0,                               \
      "The bucket's region; unset: AWS_REGION, else us-east-1.")                                   \
    X(tier_s3_path_style, "tier.s3.path.style", BOOLEAN, NULL, 0, 0, NULL, 0,                      \
      "Address the bucket in the path, not in the host name; unset: true with an endpoint.")       \
    X(tier_s3_connections_max, "tier.s3.connections.max", INT, "64", 1, 1024, NULL, 0,             \
      "Connections to the bucket for cold reads at once.")                                         \
    X(tier_s3_access_key_id, "tier.s3.access.key.id", STRING, NULL, 0, 0, NULL, 0,                 \
      "Access key; unset: the AWS environment and profile files.")                                 \
    X(tier_s3_secret_access_key, "tier.s3.secret.access.key", PASSWORD, NULL, 0, 0, NULL, 0,       \
      "Secret key; better kept in the environment or a profile file.")                             \
    X(tier_s3_session_token, "tier.s3.session.token", PASSWORD, NULL, 0, 0, NULL, 0,               \
      "Session token of temporary credentials.")                                                   \
    X(tier_s3_client, "tier.s3.client", STRING, "curl", 0, 0, "curl|libs3", 0,                     \
      "The client: our own over libcurl (Signature V4), or Debian's libs3 (Signature V2).")        \
    X(tier_s3_part_bytes, "tier.s3.part.bytes", LONG, "67108864", 5242880, 5368709120, NULL, 0,    \
      "Objects of more than two of these go up in parts of this size.")                            \
    X(tier_s3_storage_class, "tier.s3.storage.class", STRING, NULL, 0, 0, NULL, 0,                 \
      "Storage class of segment objects, as the store names it (STANDARD_IA, GLACIER_IR, ...); "   \
      "one that must be thawed first (GLACIER, DEEP_ARCHIVE) is refused. Unset: the bucket's.")    \
    X(tier_s3_sse, "tier.s3.sse", STRING, "none", 0, 0, "none|sse-s3|sse-kms", 0,                  \
      "Server-side encryption asked for with every upload; none: the bucket's default.")           \
    X(tier_s3_sse_kms_key_id, "tier.s3.sse.kms.key.id", STRING, NULL, 0, 0, NULL, 0,               \
      "The store's key for sse-kms; unset: its default key.")                                      \
    X(tier_s3_ca_file, "tier.s3.ca.file", STRING, NULL, 0, 0, NULL, 0,                             \
      "Certificates to trust for the endpoint, PEM.")                                              \
    X(remote_log_manager_copy_max_bytes_per_second,                                                \
      "remote.log.manager.copy.max.bytes.per.second", LONG, "9223372036854775807", 1, VV_I64,      \
      NULL, VV_DYN, "Upload rate limit of this broker.")                                           \
    X(remote_log_manager_fetch_max_bytes_per_second,                                               \
      "remote.log.manager.fetch.max.bytes.per.second", LONG, "9223372036854775807", 1, VV_I64,     \
      NULL, VV_DYN, "Cold read rate limit of this broker.")                                        \
    X(remote_log_manager_task_interval_ms, "remote.log.manager.task.interval.ms", LONG, "30000",   \
      1, VV_I64, NULL, 0, "The longest time between two looks; uploads are driven by events.")     \
    X(remote_fetch_max_wait_ms, "remote.fetch.max.wait.ms", INT, "500", 1, VV_I32, NULL, VV_DYN,   \
      "A Fetch waits at least this long for cold data before it answers without.")                 \
    SECTION("Client quotas")                                                                       \
    X(quota_window_num, "quota.window.num", INT, "11", 1, 1000, NULL, 0,                           \
      "Windows over which a client's rate is taken.")                                              \
    X(quota_window_size_seconds, "quota.window.size.seconds", INT, "1", 1, 3600, NULL, 0,          \
      "Length of a window.")                                                                       \
    X(tier_client_fetch_max_bytes_per_second, "tier.client.fetch.max.bytes.per.second", LONG,      \
      "9223372036854775807", 1, VV_I64, NULL, VV_DYN,                                              \
      "Cold read rate limit of each client id that has no quota remote_consumer_byte_rate.")       \
    SECTION("Consumer groups")                                                                     \
    X(group_initial_rebalance_delay_ms, "group.initial.rebalance.delay.ms", INT, "3000", 0,        \
      VV_I32, NULL, 0, "How long an empty group waits for more members before its first "          \
                       "assignment.")                                                              \
    X(group_min_session_timeout_ms, "group.min.session.timeout.ms", INT, "6000", 0, VV_I32, NULL,  \
      0, "The shortest session timeout a member may ask for.")                                     \
    X(group_max_session_timeout_ms, "group.max.session.timeout.ms", INT, "1800000", 0, VV_I32,     \
      NULL, 0, "The longest session timeout a member may ask for.")                                \
    X(group_max_size, "group.max.size", INT, "2147483647", 1, VV_I32, NULL, 0,                     \
      "Members a group may have.")                                                                 \
    X(offset_metadata_max_bytes, "offset.metadata.max.bytes", INT, "4096", 0, VV_I32, NULL, 0,     \
      "The longest note a committed offset may carry.")                                            \
    X(offsets_retention_minutes, "offsets.retention.minutes", INT, "10080", 1, VV_I32, NULL, 0,    \
      "Offsets of a group without members are forgotten after this long.")                         \
    X(offsets_retention_check_interval_ms, "offsets.retention.check.interval.ms", LONG, "600000",  \
      1, VV_I64, NULL, 0, "How often to look for offsets to forget.")                              \
    X(offsets_topic_num_partitions, "offsets.topic.num.partitions", INT, "50", 1, 1000, NULL, 0,   \
      "Partitions of __consumer_offsets when it is made.")                                         \
    X(offsets_topic_replication_factor, "offsets.topic.replication.factor", SHORT, "3", 1, 32767,  \
      NULL, 0, "Copies of __consumer_offsets; takes what there is.")                               \
    X(offsets_topic_segment_bytes, "offsets.topic.segment.bytes", INT, "104857600", 1, VV_I32,     \
      NULL, 0, "Segment size of __consumer_offsets.")                                              \
    X(offsets_commit_timeout_ms, "offsets.commit.timeout.ms", INT, "5000", 1, VV_I32, NULL, 0,     \
      "An offset commit that is not durable by then fails.")

#endif

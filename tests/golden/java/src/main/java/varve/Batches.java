package varve;

import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.Record;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.TimestampType;

/**
 * Record batches and what is in them. `write FILE SEED COUNT`: random batches by Kafka's builder. `check FILE`: reads
 * batches of somebody else with Kafka's reader and compares.
 *
 * File, big-endian, to the end: {i32 length, batch} {i32 count} count x {i64 time} {bytes key} {bytes value}
 * {i32 headers} headers x {bytes key} {bytes value}, where bytes is {i32 length, -1 for null} {bytes}.
 */
public final class Batches {
    private static final Random RANDOM = new Random();
    private static final long NOW = 1_700_000_000_000L;

    private Batches() { }

    record Entry(long time, byte[] key, byte[] value, Header[] headers) { }

    public static void main(String[] args) throws IOException {
        if (args[0].equals("write")) write(args[1], Long.parseLong(args[2]), Integer.parseInt(args[3]));
        else check(args[1]);
    }

    private static byte[] bytes(int most) {
        if (RANDOM.nextInt(8) == 0) return null;
        byte[] b = new byte[RANDOM.nextInt(4) == 0 ? 0 : RANDOM.nextInt(most)];
        for (int i = 0; i < b.length; i++)
            b[i] = (byte) (i % 50 < 25 ? "Kafka writes this again. ".charAt(i % 25) : RANDOM.nextInt());
        return b;
    }

    private static Entry entry(int most) {
        long time = RANDOM.nextInt(10) == 0 ? RecordBatch.NO_TIMESTAMP : NOW + RANDOM.nextInt(2_000_000) - 1_000_000;
        Header[] headers = new Header[RANDOM.nextInt(3) == 0 ? RANDOM.nextInt(5) : 0];
        for (int i = 0; i < headers.length; i++) headers[i] = new RecordHeader("h\u00e4" + RANDOM.nextInt(100), bytes(20));
        return new Entry(time, bytes(20), bytes(most), headers);
    }

    private static MemoryRecords build(List<Entry> entries, CompressionType codec, TimestampType type) {
        boolean producer = RANDOM.nextBoolean();
        Compression compression = Compression.of(codec).build();
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(64), RecordBatch.MAGIC_VALUE_V2, compression, type, 0L,
                NOW + 5, producer ? RANDOM.nextLong() >>> 1 : RecordBatch.NO_PRODUCER_ID,
                producer ? (short) RANDOM.nextInt(Short.MAX_VALUE) : RecordBatch.NO_PRODUCER_EPOCH,
                producer ? RANDOM.nextInt(Integer.MAX_VALUE) : RecordBatch.NO_SEQUENCE, producer && RANDOM.nextBoolean(),
                RecordBatch.NO_PARTITION_LEADER_EPOCH);
        for (Entry e : entries) b.append(e.time, e.key, e.value, e.headers);
        return b.build();
    }

    private static void put(DataOutputStream out, byte[] b) throws IOException {
        out.writeInt(b == null ? -1 : b.length);
        if (b != null) out.write(b);
    }

    private static byte[] take(DataInputStream in) throws IOException {
        int n = in.readInt();
        return n < 0 ? null : in.readNBytes(n);
    }

    private static void write(String file, long seed, int count) throws IOException {
        RANDOM.setSeed(seed);
        try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(new FileOutputStream(file)))) {
            for (int i = 0; i < count; i++) {
                CompressionType codec = CompressionType.values()[i % CompressionType.values().length];
                TimestampType type = RANDOM.nextInt(10) == 0 ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME;
                int most = RANDOM.nextInt(20) == 0 ? 50_000 : 100; /* large ones span the codecs' blocks */
                List<Entry> entries = new ArrayList<>();
                for (int n = 1 + RANDOM.nextInt(most > 100 ? 3 : 20); n > 0; n--) entries.add(entry(most));
                ByteBuffer batch = build(entries, codec, type).buffer();
                byte[] b = new byte[batch.remaining()];
                batch.get(b);
                put(out, b);
                out.writeInt(entries.size());
                for (Entry e : entries) {
                    out.writeLong(type == TimestampType.LOG_APPEND_TIME ? NOW + 5 : e.time);
                    put(out, e.key);
                    put(out, e.value);
                    out.writeInt(e.headers.length);
                    for (Header h : e.headers) {
                        put(out, h.key().getBytes(StandardCharsets.UTF_8));
                        put(out, h.value());
                    }
                }
            }
        }
    }

    private static byte[] array(ByteBuffer b) {
        if (b == null) return null;
        byte[] out = new byte[b.remaining()];
        b.duplicate().get(out);
        return out;
    }

    private static void same(Object a, Object b, String what) {
        if (!a.equals(b)) throw new IllegalStateException(what + ": " + a + " and " + b);
    }

    private static void same(byte[] a, byte[] b, String what) {
        if (!Arrays.equals(a, b)) throw new IllegalStateException(what + " differs");
    }

    private static void check(String file) throws IOException {
        int batches = 0;
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(new FileInputStream(file)))) {
            for (in.mark(1); in.read() >= 0; in.mark(1), batches++) {
                in.reset();
                MemoryRecords records = MemoryRecords.readableRecords(ByteBuffer.wrap(take(in)));
                var all = records.batches().iterator();
                RecordBatch batch = all.next();
                if (all.hasNext()) throw new IllegalStateException("more than one batch");
                batch.ensureValid();
                int count = in.readInt(), at = 0;
                long max = RecordBatch.NO_TIMESTAMP;
                same(batch.countOrNull(), count, "count");
                for (Record r : batch) {
                    long time = in.readLong();
                    same(r.offset(), (long) at++, "offset");
                    same(r.timestamp(), time, "time");
                    same(array(r.key()), take(in), "key");
                    same(array(r.value()), take(in), "value");
                    same(r.headers().length, in.readInt(), "headers");
                    for (Header h : r.headers()) {
                        same(h.key().getBytes(StandardCharsets.UTF_8), take(in), "header key");
                        same(h.value(), take(in), "header value");
                    }
                    max = Math.max(max, time);
                }
                same(at, count, "records");
                same(batch.maxTimestamp(), max, "maximum time");
            }
        }
        System.err.println(batches + " batches of ours read by Kafka");
    }
}

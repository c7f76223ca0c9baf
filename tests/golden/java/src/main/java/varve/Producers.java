package varve;

import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.io.File;
import java.io.FileOutputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.util.Optional;
import java.util.Random;

import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.record.ControlRecordType;
import org.apache.kafka.common.record.EndTransactionMarker;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.RecordBatch;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.utils.Time;
import org.apache.kafka.storage.internals.log.AppendOrigin;
import org.apache.kafka.storage.internals.log.LogOffsetMetadata;
import org.apache.kafka.storage.internals.log.ProducerAppendInfo;
import org.apache.kafka.storage.internals.log.ProducerStateEntry;
import org.apache.kafka.storage.internals.log.ProducerStateManager;
import org.apache.kafka.storage.internals.log.ProducerStateManagerConfig;

/**
 * A partition's producer state by Kafka's own classes: random batches, good and bad, and what Kafka says of each.
 * Arguments: FILE SEED COUNT.
 *
 * File, big-endian: {i32 count} count x {61 bytes: header of the batch} {i32 answer: an error, 0, or 1000: duplicate}
 * {i64 base offset of the original, else -1} {i64 first unstable offset behind it, -1 none}, then Kafka's snapshot.
 */
public final class Producers {
    private static final Random RANDOM = new Random();
    private static final int PRODUCERS = 6;

    private final File dir = Files.createTempDirectory("varve-producers").toFile();
    private final ProducerStateManager state = new ProducerStateManager(new TopicPartition("t", 0), dir, 900_000,
            new ProducerStateManagerConfig(86_400_000, false), Time.SYSTEM);
    private final short[] epoch = new short[PRODUCERS];
    private final int[] next = new int[PRODUCERS];
    private final boolean[] open = new boolean[PRODUCERS];
    private final RecordBatch[] past = new RecordBatch[64];
    private long offset;
    private int written;

    private Producers() throws Exception { }

    private static RecordBatch only(MemoryRecords records) {
        return records.batches().iterator().next();
    }

    private RecordBatch data(int id, short e, int sequence, boolean transactional) {
        MemoryRecordsBuilder b = MemoryRecords.builder(ByteBuffer.allocate(256), RecordBatch.MAGIC_VALUE_V2, Compression.NONE,
                TimestampType.CREATE_TIME, offset, RecordBatch.NO_TIMESTAMP, id, e, sequence, transactional, 0);
        for (int n = 1 + RANDOM.nextInt(4); n > 0; n--) b.append(1000 + offset, null, new byte[] {1});
        return only(b.build());
    }

    private RecordBatch marker(int id, short e) {
        return only(MemoryRecords.withEndTransactionMarker(offset, 1000 + offset, 0, id, e,
                new EndTransactionMarker(RANDOM.nextBoolean() ? ControlRecordType.COMMIT : ControlRecordType.ABORT, 0)));
    }

    /** Mostly what a good producer sends next, sometimes anything near it. */
    private RecordBatch choose() {
        int id = RANDOM.nextInt(PRODUCERS);
        short e = epoch[id];
        int sequence = next[id];
        boolean transactional = open[id] || id % 2 == 1;
        if (open[id] && RANDOM.nextInt(3) == 0) return marker(id, e);
        switch (RANDOM.nextInt(16)) {
            case 0: if (written > 0 && past[RANDOM.nextInt(Math.min(written, 8))] != null)
                return past[(written - 1 - RANDOM.nextInt(Math.min(written, 12))) % past.length]; /* again */
                break;
            case 1: sequence = (sequence + 1 + RANDOM.nextInt(3)) & Integer.MAX_VALUE; break;
            case 2: sequence = (sequence - 1) & Integer.MAX_VALUE; break;
            case 3: sequence = 0; break;
            case 4: e++; break;
            case 5: e++; sequence = 0; break;
            case 6: e--; break;
            case 7: transactional = !transactional; break;
            case 8: case 9: if (id % 2 == 1) return marker(id, e); break;
            case 10: if (id % 2 == 1 && RANDOM.nextInt(4) == 0) return marker(id, (short) (e + 1)); break;
            case 11: if (id % 2 == 1 && e > 0 && RANDOM.nextInt(4) == 0) return marker(id, (short) (e - 1)); break;
            default: break;
        }
        return data(id, (short) Math.max(e, 0), sequence, transactional);
    }

    private int append(RecordBatch batch, long[] original) {
        long id = batch.producerId();
        AppendOrigin origin = batch.isControlBatch() ? AppendOrigin.COORDINATOR : AppendOrigin.CLIENT;
        Optional<ProducerStateEntry> entry = state.lastEntry(id);
        if (!batch.isControlBatch() && entry.isPresent()) {
            var duplicate = entry.get().findDuplicateBatch(batch);
            if (duplicate.isPresent()) {
                original[0] = duplicate.get().firstOffset();
                return 1000;
            }
        }
        ProducerAppendInfo info = state.prepareUpdate(id, origin);
        try {
            info.append(batch, Optional.of(new LogOffsetMetadata(batch.baseOffset())), (short) 0).ifPresent(txn -> {
                state.update(info);
                state.completeTxn(txn);
            });
        } catch (RuntimeException e) {
            return Errors.forException(e).code();
        }
        state.update(info);
        return 0;
    }

    private void taken(RecordBatch batch) {
        int id = (int) batch.producerId();
        if (batch.producerEpoch() != epoch[id]) next[id] = 0;
        epoch[id] = batch.producerEpoch();
        if (batch.isControlBatch()) {
            open[id] = false;
        } else {
            open[id] |= batch.isTransactional();
            next[id] = (batch.lastSequence() + 1) & Integer.MAX_VALUE;
            past[written++ % past.length] = batch;
        }
        offset = batch.lastOffset() + 1;
        state.updateMapEndOffset(offset);
    }

    private void run(DataOutputStream out, int count) throws Exception {
        for (int id = 0; id < PRODUCERS; id++) next[id] = id < 2 ? 0 : Integer.MAX_VALUE - 10 * id; /* unknown ones may begin anywhere */
        out.writeInt(count);
        for (int i = 0; i < count; i++) {
            RecordBatch batch = choose();
            ByteBuffer bytes = ByteBuffer.allocate(batch.sizeInBytes());
            batch.writeTo(bytes);
            out.write(bytes.array(), 0, 61);
            long[] original = {-1};
            int answer = append(batch, original);
            if (answer == 0) taken(batch);
            out.writeInt(answer);
            out.writeLong(original[0]);
            state.onHighWatermarkUpdated(offset);
            out.writeLong(state.firstUnstableOffset().map(o -> o.messageOffset).orElse(-1L));
        }
        File snapshot = state.takeSnapshot(false).orElseThrow();
        out.write(Files.readAllBytes(snapshot.toPath()));
        Files.delete(snapshot.toPath());
        Files.delete(dir.toPath());
    }

    public static void main(String[] args) throws Exception {
        RANDOM.setSeed(Long.parseLong(args[1]));
        try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(new FileOutputStream(args[0])))) {
            new Producers().run(out, Integer.parseInt(args[2]));
        }
    }
}

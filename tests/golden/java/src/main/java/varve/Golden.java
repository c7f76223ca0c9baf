package varve;

import java.io.DataOutputStream;
import java.io.FileOutputStream;
import java.io.BufferedOutputStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.AbstractCollection;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Random;

import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.ObjectSerializationCache;
import org.apache.kafka.common.record.BaseRecords;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.utils.ImplicitLinkedHashCollection;

/**
 * Writes golden vectors: random messages of Kafka's own generated classes, encoded by Kafka.
 *
 * File: records of {u8 length, schema name} {i16 version} {i32 length, bytes}, big-endian, to the end.
 * Arguments: output file, seed, messages per version, then lines "Name class low high" on standard input.
 *
 * How a message gets valid for a version: fields are filled by reflection, one at a time, and Kafka's encoder says
 * whether the version can carry the value; if not, the field keeps its default. Nulls are tried the same way.
 */
public final class Golden {
    private static final Random RANDOM = new Random();

    private Golden() { }

    public static void main(String[] args) throws Exception {
        long seed = Long.parseLong(args[1]);
        int perVersion = Integer.parseInt(args[2]);
        int messages = 0;
        List<String> lines = new String(System.in.readAllBytes(), StandardCharsets.UTF_8).lines().toList();
        try (DataOutputStream out = new DataOutputStream(new BufferedOutputStream(new FileOutputStream(args[0])))) {
            for (String line : lines) {
                String[] words = line.split(" ");
                Class<?> type = Class.forName(words[1]);
                for (int v = Integer.parseInt(words[2]); v <= Integer.parseInt(words[3]); v++) {
                    for (int i = 0; i < perVersion; i++) {
                        RANDOM.setSeed(seed * 31 + words[0].hashCode() * 1000003L + v * 1009L + i);
                        write(out, words[0], (short) v, make(type, (short) v, i));
                        messages++;
                    }
                }
            }
        }
        System.err.println(messages + " messages");
    }

    private static void write(DataOutputStream out, String name, short version, byte[] bytes) throws Exception {
        out.writeByte(name.length());
        out.writeBytes(name);
        out.writeShort(version);
        out.writeInt(bytes.length);
        out.write(bytes);
    }

    /** i = 0: all defaults (as far as they can be encoded); else random. */
    private static byte[] make(Class<?> type, short version, int i) throws Exception {
        Object message = create(type);
        byte[] bytes = encode((Message) message, version);
        if (i > 0 || bytes == null) {
            fill(message, message, version, 0);
            bytes = encode((Message) message, version);
        }
        if (bytes == null) throw new IllegalStateException(type + " version " + version);
        return bytes;
    }

    private static byte[] encode(Message message, short version) {
        try {
            ObjectSerializationCache cache = new ObjectSerializationCache();
            ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
            message.write(new ByteBufferAccessor(buffer), cache, version);
            return buffer.array();
        } catch (RuntimeException e) {
            return null;
        }
    }

    private static Object create(Class<?> type) throws Exception {
        Constructor<?> constructor = type.getDeclaredConstructor();
        constructor.setAccessible(true);
        return constructor.newInstance();
    }

    private static List<Field> fields(Object o) {
        List<Field> found = new ArrayList<>();
        for (Field f : o.getClass().getDeclaredFields()) {
            boolean skip = Modifier.isStatic(f.getModifiers()) || f.getName().startsWith("_unknown")
                || (f.getName().equals("next") || f.getName().equals("prev")) && f.getType() == int.class;
            if (skip) continue;
            f.setAccessible(true);
            found.add(f);
        }
        return found;
    }

    /** Gives each field of o a value with which root can still be encoded. */
    private static void fill(Object o, Object root, short version, int depth) throws Exception {
        for (Field f : fields(o)) {
            Object before = f.get(o);
            Object value = value(f, depth);
            f.set(o, value);
            if (encode((Message) root, version) == null) {
                f.set(o, before);
                if (encode((Message) root, version) == null) f.set(o, value);
            }
            if (RANDOM.nextInt(4) == 0 && !f.getType().isPrimitive()) {
                Object kept = f.get(o);
                f.set(o, null);
                if (encode((Message) root, version) == null) f.set(o, kept);
            }
        }
        /* Structs are filled after they hang in the tree, so that each of their fields is checked too. */
        for (Field f : fields(o)) {
            Object v = f.get(o);
            if (v instanceof Message) fill(v, root, version, depth + 1);
            if (v instanceof Collection<?> c)
                for (Object e : c.toArray())
                    if (e instanceof Message) fill(e, root, version, depth + 1);
        }
    }

    private static Object value(Field f, int depth) throws Exception {
        Class<?> type = f.getType();
        if (Collection.class.isAssignableFrom(type)) return collection(f, depth);
        return scalar(type);
    }

    private static Object scalar(Class<?> type) throws Exception {
        if (type == boolean.class) return RANDOM.nextBoolean();
        if (type == byte.class || type == Byte.class) return (byte) RANDOM.nextInt();
        if (type == short.class || type == Short.class) return (short) RANDOM.nextInt();
        if (type == int.class || type == Integer.class) return RANDOM.nextInt();
        if (type == long.class || type == Long.class) return RANDOM.nextLong();
        if (type == double.class || type == Double.class) return RANDOM.nextGaussian() * 1e6;
        if (type == String.class) return text();
        if (type == Uuid.class) return new Uuid(RANDOM.nextLong(), RANDOM.nextLong());
        if (type == byte[].class) return bytes();
        if (type == ByteBuffer.class) return ByteBuffer.wrap(bytes());
        if (BaseRecords.class.isAssignableFrom(type)) return MemoryRecords.readableRecords(ByteBuffer.wrap(bytes()));
        return create(type);
    }

    private static Object collection(Field f, int depth) throws Exception {
        int n = RANDOM.nextInt(depth > 2 ? 3 : 4);
        Type generic = f.getGenericType();
        if (ImplicitLinkedHashCollection.class.isAssignableFrom(f.getType())) {
            Type parent = f.getType().getGenericSuperclass();
            Class<?> element = (Class<?>) ((ParameterizedType) parent).getActualTypeArguments()[0];
            @SuppressWarnings("unchecked")
            AbstractCollection<Object> set = (AbstractCollection<Object>) create(f.getType());
            for (int i = 0; i < n; i++)
                set.add(create(element));
            return set;
        }
        Class<?> element = (Class<?>) ((ParameterizedType) generic).getActualTypeArguments()[0];
        List<Object> list = new ArrayList<>();
        for (int i = 0; i < n; i++)
            list.add(scalar(element));
        return list;
    }

    private static String text() {
        StringBuilder s = new StringBuilder();
        for (int n = RANDOM.nextInt(16); n > 0; n--)
            s.append(RANDOM.nextInt(8) == 0 ? 'é' : (char) ('a' + RANDOM.nextInt(26)));
        return s.toString();
    }

    private static byte[] bytes() {
        byte[] b = new byte[RANDOM.nextInt(24)];
        RANDOM.nextBytes(b);
        return b;
    }
}

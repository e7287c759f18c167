import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Base64;
import org.HdrHistogram.AbstractHistogram;
import org.HdrHistogram.Histogram;

/**
 * Writes a log in the encoding of an old HdrHistogram, and what each histogram holds as a comment before its line.
 *
 * <p>HdrHistogram 1.2.1 writes V0, 2.0.1 writes V1: `java -cp HdrHistogram-1.2.1.jar WriteOldHlog.java > v0.hlog`.
 */
public final class WriteOldHlog {
    public static void main(String[] args) throws Exception {
        System.out.println("#[Logged with jHiccup version 2.0.3-SNAPSHOT]");
        System.out.println("#[Histogram log format version 1.01]");
        System.out.println("#[StartTime: 1403476110.183 (seconds since epoch), Mon Jun 23 10:28:30 NZST 2014]");
        System.out.println("\"StartTimestamp\",\"EndTimestamp\",\"Interval_Max\",\"Interval_Compressed_Histogram\"");
        AbstractHistogram[] all = {
            new Histogram(1, 3_600_000_000L, 2), new Histogram(1_000, 3_600_000_000_000L, 3),
            narrow("Int"), narrow("Short"),
        };
        long state = 7;
        for (int at = 0; at < all.length; at++) {
            for (int n = 0; n < 300; n++) {
                state = state * 6364136223846793005L + 1442695040888963407L;
                all[at].recordValue(1 + (state >>> 40) % 90_000_000L);
            }
            System.out.println("# count " + all[at].getTotalCount() + ", p50 " + all[at].getValueAtPercentile(50.0)
                    + ", p99 " + all[at].getValueAtPercentile(99.0) + ", max " + all[at].getMaxValue());
            ByteBuffer buffer = ByteBuffer.allocate(all[at].getNeededByteBufferCapacity() + 1_000);
            int length = all[at].encodeIntoCompressedByteBuffer(buffer, 9);
            String text = Base64.getEncoder().encodeToString(Arrays.copyOf(buffer.array(), length));
            System.out.println(at + ".127,1.007," + all[at].getMaxValue() / 1e6 + "," + text);
        }
    }

    /** Counters of 4 or 2 bytes: IntHistogram in version 1, IntCountsHistogram in version 2. */
    private static AbstractHistogram narrow(String kind) throws Exception {
        Class<?> found;
        try {
            found = Class.forName("org.HdrHistogram." + kind + "CountsHistogram");
        } catch (ClassNotFoundException error) {
            found = Class.forName("org.HdrHistogram." + kind + "Histogram");
        }
        return (AbstractHistogram)
                found.getConstructor(long.class, long.class, int.class).newInstance(1L, 100_000_000L, 2);
    }
}

import java.io.File;
import java.io.PrintStream;
import java.util.Locale;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.HistogramLogReader;
import org.HdrHistogram.HistogramLogWriter;

/** Reads logs as Java does, for tests: each histogram as a line of JSON, its .hgrm, or written to a log again. */
public final class ReadHlog {
    private static final double[] PERCENTILES = {0.0, 1.0, 25.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0};

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "json":
                read(args[1], System.out);
                break;
            case "hgrm":
                distribution(args[1], args[2]);
                break;
            case "copy":
                copy(args[1], args[2]);
                break;
            default:
                throw new IllegalArgumentException(args[0]);
        }
    }

    private static void read(String path, PrintStream out) throws Exception {
        HistogramLogReader reader = new HistogramLogReader(path);
        Histogram histogram;
        while ((histogram = (Histogram) reader.nextIntervalHistogram()) != null) {
            StringBuilder values = new StringBuilder();
            for (double percentile : PERCENTILES) {
                values.append(values.length() == 0 ? "" : ",").append(histogram.getValueAtPercentile(percentile));
            }
            out.printf(
                    Locale.US,
                    "{\"tag\":\"%s\",\"start_ms\":%d,\"end_ms\":%d,\"count\":%d,\"min\":%d,\"max\":%d,"
                            + "\"mean\":%.6f,\"stdev\":%.6f,\"percentiles\":[%s]}%n",
                    histogram.getTag(), histogram.getStartTimeStamp(), histogram.getEndTimeStamp(),
                    histogram.getTotalCount(), histogram.getMinValue(), histogram.getMaxValue(),
                    histogram.getMean(), histogram.getStdDeviation(), values);
        }
    }

    private static void distribution(String path, String tag) throws Exception {
        HistogramLogReader reader = new HistogramLogReader(path);
        Histogram histogram;
        while ((histogram = (Histogram) reader.nextIntervalHistogram()) != null) {
            if (tag.equals(histogram.getTag())) {
                histogram.outputPercentileDistribution(System.out, 5, 1e6);
            }
        }
    }

    private static void copy(String from, String to) throws Exception {
        HistogramLogReader reader = new HistogramLogReader(from);
        HistogramLogWriter writer = new HistogramLogWriter(new File(to));
        writer.outputLogFormatVersion();
        writer.outputStartTime(1_700_000_000_000L);
        writer.setBaseTime(1_700_000_000_000L);
        writer.outputBaseTime(1_700_000_000_000L);
        writer.outputLegend();
        Histogram histogram;
        while ((histogram = (Histogram) reader.nextIntervalHistogram()) != null) {
            writer.outputIntervalHistogram(histogram);
        }
        writer.close();
    }

    private ReadHlog() {}
}

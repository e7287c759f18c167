// Writes an .hlog as hdr-histogram-js does: `node write_hlog.js LEVEL SEED DIGITS`, to stdout; values in microseconds.
const hdr = require("hdr-histogram-js");
const [level, seed, digits] = process.argv.slice(2).map(Number);

let state = seed;
const uniform = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return (state + 0.5) / 4294967296;
};
const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());

const writer = new hdr.HistogramLogWriter((text) => process.stdout.write(text));
writer.outputLogFormatVersion();
writer.outputStartTime(1700000000000);
writer.baseTime = 1700000000000;
writer.outputLegend();
for (const tag of ["", "GET_/x"]) {
  for (let interval = 0; interval < 3; interval++) {
    const histogram = hdr.build({ bitBucketSize: 64, numberOfSignificantValueDigits: digits, autoResize: true });
    const own = level + 0.01 * normal();
    for (let at = 0; at < 500; at++) histogram.recordValue(Math.round(Math.exp(own + 0.4 * normal())));
    histogram.startTimeStampMsec = 1700000000000 + 1000 * interval;
    histogram.endTimeStampMsec = histogram.startTimeStampMsec + 1000;
    if (tag) histogram.tag = tag;
    writer.outputIntervalHistogram(histogram);
    process.stderr.write(JSON.stringify({ tag, count: histogram.totalCount, max: histogram.maxValue }) + "\n");
  }
}

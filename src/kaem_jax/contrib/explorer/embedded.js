// The backend that computes in this page, from the arrays that src/kaem_jax/explorer/static.py put into it.

function makeBackend(model, data) {
  const bytes = Uint8Array.from(atob(data.arrays), (letter) => letter.charCodeAt(0));
  const numbers = new Float32Array(bytes.length / 4);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < numbers.length; i++) numbers[i] = view.getFloat32(4 * i, true);

  const flat = ({ first, shape }) => numbers.subarray(first, first + shape.reduce((a, b) => a * b, 1));

  // Arrays within arrays for every axis but the last.
  function nested(place) {
    const { first, shape } = place;
    if (shape.length < 2) return flat(place);
    const inner = shape.slice(1);
    const size = inner.reduce((a, b) => a * b, 1);
    return Array.from({ length: shape[0] }, (unused, i) => nested({ first: first + i * size, shape: inner }));
  }

  // The same description with arrays in the place of where they are.
  function filled(part) {
    if (part === null || typeof part !== "object" || Array.isArray(part)) {
      return Array.isArray(part) ? part.map(filled) : part;
    }
    if ("first" in part && "shape" in part) return flat(part);
    return Object.fromEntries(Object.entries(part).map(([name, value]) => [name, filled(value)]));
  }

  const stored = data.densities;
  const logProportions = stored.log_proportions;
  const marginal = logProportions ? logProportions.length : 0; // the row of the marginals
  const size = model.names.length;
  const coordinates = Array.from({ length: size }, (unused, d) => d);
  const densities = makeDensities({
    edges: nested(stored.edges),
    below: nested(stored.below),
    mass: nested(stored.mass),
    density: nested(stored.density),
    above: nested(stored.above),
    base: stored.base,
  });
  const decodeFeatures = makeDecoder(filled(data.decoder), data.likelihood);

  // A product prior's decoder takes sums over the second axis, that of mixed latents their products with a matrix.
  function features(latent) {
    if (stored.mixing) return stored.mixing.map((row) => row.reduce((sum, weight, d) => sum + weight * latent[d], 0));
    if (!stored.sums) return latent;
    const [rows, columns] = stored.sums;
    return Array.from({ length: rows }, (unused, i) =>
      latent.slice(i * columns, (i + 1) * columns).reduce((sum, z) => sum + z, 0),
    );
  }

  const SMALLEST = 1e-38; // what float32 can hold

  // p(c | the coordinates that are known), [C].
  function sharesOfClusters(latent, isKnown) {
    const logs = logProportions.map((logShare, c) =>
      coordinates.reduce(
        (sum, d) => (isKnown[d] ? sum + Math.log(Math.max(densities.density(c, d, latent[d]), SMALLEST)) : sum),
        logShare,
      ),
    );
    const top = Math.max(...logs);
    const weights = logs.map((value) => Math.exp(value - top));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return weights.map((weight) => weight / total);
  }

  function choose(shares) {
    let rest = Math.random();
    const found = shares.findIndex((share) => (rest -= share) < 0);
    return found < 0 ? shares.indexOf(Math.max(...shares)) : found;
  }

  // Inside (0, 1).
  const uniform = () => (Math.floor(Math.random() * 2 ** 32) + 0.5) / 2 ** 32;

  function drawOne({ latent, locked, cluster }) {
    let row = marginal;
    if (logProportions) row = cluster ?? choose(sharesOfClusters(latent, locked));
    return coordinates.map((d) => Math.fround(locked[d] ? latent[d] : densities.quantile(row, d, uniform())));
  }

  const ALL_KNOWN = coordinates.map(() => true);
  const NUM_POINTS = 160;

  const axes = coordinates.map((d) => {
    const [low, high] = [1e-4, 1 - 1e-4].map((u) => densities.quantile(marginal, d, u));
    const margin = 0.05 * (high - low);
    const below = stored.base.kind === "normal" ? margin : 0; // nothing lies beyond a bound
    const above = stored.base.kind === "uniform" ? 0 : margin;
    const step = (high - low + below + above) / (NUM_POINTS - 1);
    return Array.from({ length: NUM_POINTS }, (unused, k) => low - below + k * step);
  });

  const EDGE = 2 ** -23;
  const OPPOSITE = 0.05;
  const ORIGIN = 1e-3;
  const uniformOf = (latent) =>
    latent.map((z, d) => Math.min(1 - EDGE, Math.max(EDGE, densities.cdf(marginal, d, z))));

  function between(first, second, kind) {
    const [u, v] = [uniformOf(first), uniformOf(second)];
    if (kind === "straight") return (t) => u.map((value, d) => (1 - t) * value + t * v[d]);
    const [a, b] = [u.map(normalQuantile), v.map(normalQuantile)];
    const dot = (x, y) => x.reduce((sum, value, d) => sum + value * y[d], 0);
    const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    const angle = Math.acos(Math.min(1 - 1e-6, Math.max(-1 + 1e-6, cosine)));
    // Opposite ends, such as any two of one latent on either side of the median, lie on no circle of their own.
    // Nor has the origin of normal scores an angle.
    const hasAngle = Math.sin(angle) >= OPPOSITE && Math.min(dot(a, a), dot(b, b)) > ORIGIN ** 2;
    if (!hasAngle) return (t) => a.map((value, d) => normalCdf((1 - t) * value + t * b[d]));
    return (t) =>
      a.map((value, d) =>
        normalCdf((Math.sin((1 - t) * angle) * value + Math.sin(t * angle) * b[d]) / Math.sin(angle)),
      );
  }

  const pause = () => new Promise((resolve) => setTimeout(resolve));

  return {
    reads: false,
    densities,
    async curves(cluster) {
      const row = cluster ?? marginal;
      return {
        latent: axes,
        z: axes,
        density: axes.map((z, d) => z.map((x) => densities.density(row, d, x))),
        base: axes.map((z, d) => z.map((x) => densities.baseDensity(d, x))),
      };
    },
    async decode(latents) {
      const images = [];
      for (const latent of latents) {
        images.push(decodeFeatures(features(latent)));
        if (latents.length > 1) await pause(); // so that a handle stays quick while many pictures are made
      }
      return { images, clusters: logProportions && latents.map((latent) => sharesOfClusters(latent, ALL_KNOWN)) };
    },
    async draw({ latent, locked, cluster, num }) {
      return { latents: Array.from({ length: num }, () => drawOne({ latent, locked, cluster })) };
    },
    async path({ first, second, kind, num }) {
      const at = between(first, second, kind);
      const latents = Array.from({ length: num }, (unused, k) =>
        at(k / (num - 1)).map((u, d) => Math.fround(densities.quantile(marginal, d, Math.min(1 - EDGE, Math.max(EDGE, u))))),
      );
      latents[0] = first;
      latents[num - 1] = second;
      return { latents };
    },
  };
}

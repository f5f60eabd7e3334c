// Univariate densities from their values at the edges of panels, as src/kaem_jax/explorer/static.py stores them.
//
// Between two edges the CDF is the cubic with the CDF and the density of both. Outside, a tail is a constant multiple of
// the base, which is normal in the coordinate (z - mean) / deviation, or (log z - mean) / deviation.

// The probability below x under N(0, 1), to 1.2e-7 of itself (Press et al., Numerical Recipes, "erfcc").
function normalCdf(x) {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + z / 2);
  const coefficients = [
    -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587, -0.82215223,
    0.17087277,
  ];
  const series = coefficients.reduceRight((sum, coefficient) => sum * t + coefficient, 0);
  const half = 0.5 * t * Math.exp(-z * z + series);
  return x < 0 ? half : 1 - half;
}

// The x with probability p below it under N(0, 1), by bisection of the smaller tail.
function normalQuantile(p) {
  if (p > 0.5) return -normalQuantile(1 - p);
  let low = -40;
  let high = 0;
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (normalCdf(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

// edges [D][M + 1]; below, above [L][D]; mass [L][D][M]; density [L][D][M + 1]; row is a position in L, d one in D.
function makeDensities({ edges, below, mass, density, above, base }) {
  const hasTails = base.kind !== "uniform";

  // The probability below each edge.
  const lower = mass.map((row, l) =>
    row.map((masses, d) => {
      let sum = below[l][d];
      return [sum, ...Array.from(masses, (value) => (sum += value))];
    }),
  );

  function standard(d, z) {
    const x = base.kind === "lognormal" ? Math.log(Math.max(z, 1e-38)) : z;
    return (x - base.mean[d]) / base.deviation[d];
  }

  function fromStandard(d, x) {
    const z = base.mean[d] + base.deviation[d] * x;
    return base.kind === "lognormal" ? Math.exp(z) : z;
  }

  function baseDensity(d, z) {
    if (!hasTails) return z < base.low || z > base.high ? 0 : 1 / (base.high - base.low);
    if (base.kind === "lognormal" && z <= 0) return 0;
    const x = standard(d, z);
    const slope = 1 / (base.deviation[d] * (base.kind === "lognormal" ? z : 1));
    return (slope * Math.exp(-0.5 * x * x)) / Math.sqrt(2 * Math.PI);
  }

  // The largest j below the number of panels with values[j] <= x.
  function search(values, x) {
    let low = 0;
    let high = values.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (values[middle] <= x) low = middle;
      else high = middle;
    }
    return low;
  }

  // Coefficients of t, t^2, t^3 of the CDF in panel j, above its value at the left edge; t in 0..1.
  function cubic(row, d, j) {
    const h = edges[d][j + 1] - edges[d][j];
    const inside = mass[row][d][j];
    const left = h * density[row][d][j];
    const right = h * density[row][d][j + 1];
    return [left, 3 * inside - 2 * left - right, left + right - 2 * inside];
  }

  const rise = ([a, b, c], t) => t * (a + t * (b + t * c));
  const last = (d) => edges[d].length - 1;

  function cdf(row, d, z) {
    const [low, high] = [edges[d][0], edges[d][last(d)]];
    if (z < low) {
      if (!hasTails) return 0;
      return (lower[row][d][0] * normalCdf(standard(d, z))) / normalCdf(standard(d, low));
    }
    if (z > high) {
      if (!hasTails) return 1;
      return 1 - (above[row][d] * normalCdf(-standard(d, z))) / normalCdf(-standard(d, high));
    }
    const j = search(edges[d], z);
    const width = edges[d][j + 1] - edges[d][j];
    return lower[row][d][j] + rise(cubic(row, d, j), width > 0 ? (z - edges[d][j]) / width : 1);
  }

  function densityAt(row, d, z) {
    const [low, high] = [edges[d][0], edges[d][last(d)]];
    if (z < low || z > high) {
      if (!hasTails) return 0;
      const mass = z < low ? lower[row][d][0] : above[row][d];
      const ofBase = z < low ? normalCdf(standard(d, low)) : normalCdf(-standard(d, high));
      return (mass * baseDensity(d, z)) / ofBase;
    }
    const j = search(edges[d], z);
    const width = edges[d][j + 1] - edges[d][j];
    if (!(width > 0)) return density[row][d][j];
    const t = (z - edges[d][j]) / width;
    const [a, b, c] = cubic(row, d, j);
    return Math.max(0, (a + t * (2 * b + t * 3 * c)) / width);
  }

  // The point with probability u in (0, 1) below it.
  function quantile(row, d, u) {
    const [low, high] = [edges[d][0], edges[d][last(d)]];
    if (hasTails && u < lower[row][d][0]) {
      return fromStandard(d, normalQuantile((u * normalCdf(standard(d, low))) / lower[row][d][0]));
    }
    if (hasTails && 1 - u < above[row][d]) {
      return fromStandard(d, -normalQuantile(((1 - u) * normalCdf(-standard(d, high))) / above[row][d]));
    }
    const j = search(lower[row][d], u);
    const coefficients = cubic(row, d, j);
    const target = u - lower[row][d][j];
    let left = 0;
    let right = 1;
    for (let i = 0; i < 40; i++) {
      const middle = (left + right) / 2;
      if (rise(coefficients, middle) < target) left = middle;
      else right = middle;
    }
    return edges[d][j] + ((edges[d][j + 1] - edges[d][j]) * (left + right)) / 2;
  }

  return { cdf, density: densityAt, quantile, baseDensity };
}

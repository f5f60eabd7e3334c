"""Trees of clusters against sums over all clusters, and what is fitted against what made the rows."""

import itertools

import numpy as np
import pytest
from scipy import special, stats

from kaem_jax.tables import fit_tree as fitting
from kaem_jax.tables.density import Rows
from kaem_jax.tables.fit_tree import Tried, fit_tree
from kaem_jax.tables.tree import CategoryLeaf, NumberLeaf, TableTree
from tests.truth import assert_within

K = 2
ORDER = (1, 3, 0, 2)  # columns in the order of the tree; the last of the four is the category
PARENTS = (-1, 0, 0, 2)
REGRESSORS = ((), (), (1,), (1, 0))


def random_tree(rng, regressors=REGRESSORS, num_clusters=K):
    transitions, leaves = [], []
    for column, parent, given in zip(ORDER, PARENTS, regressors, strict=True):
        transitions.append(rng.dirichlet(np.ones(num_clusters), 1 if parent < 0 else num_clusters).astype(np.float32))
        if column == 3:
            leaves.append(CategoryLeaf(0, np.log(rng.dirichlet(np.ones(3), num_clusters)).astype(np.float32)))
        else:
            root = rng.normal(size=(num_clusters, len(given) + 1, len(given) + 1))
            covariance = root @ np.swapaxes(root, 1, 2) + 0.3 * np.eye(len(given) + 1)
            leaves.append(NumberLeaf(column, given, rng.normal(size=(num_clusters, len(given) + 1)), covariance))
    return TableTree(3, PARENTS, tuple(transitions), tuple(leaves))


def components(tree):
    """Of all assignments of clusters: the log of their probability with each category, and moments of the numbers."""
    for z in itertools.product(range(tree.num_clusters), repeat=4):
        log_p, log_theta = 0.0, None
        mean, covariance = np.zeros(3), np.zeros((3, 3))
        for i, (parent, leaf) in enumerate(zip(tree.parents, tree.leaves, strict=True)):
            log_p += np.log(tree.transitions[i][0 if parent < 0 else z[parent], z[i]])
            if isinstance(leaf, CategoryLeaf):
                log_theta = leaf.log_theta[z[i]]
                continue
            m, s, given, own = leaf.mean[z[i]], leaf.covariance[z[i]], list(leaf.regressors), leaf.column
            slope = np.linalg.solve(s[:-1, :-1], s[:-1, -1])
            mean[own] = m[-1] + slope @ (mean[given] - m[:-1])
            cross = covariance[:, given] @ slope
            covariance[own], covariance[:, own] = cross, cross
            covariance[own, own] = s[-1, -1] - slope @ s[:-1, -1] + slope @ covariance[np.ix_(given, given)] @ slope
        yield z, log_p + log_theta, mean, covariance


def exact(tree, row, code):
    """Log p of the known cells, and mean and second moments of all numbers given them."""
    known, logs, means, seconds = ~np.isnan(row), [], [], []
    for _, log_p, mean, covariance in components(tree):
        own = covariance[np.ix_(known, known)]
        gain = covariance[:, known] @ np.linalg.inv(own)
        of_numbers = stats.multivariate_normal(mean[known], own).logpdf(row[known]) if known.any() else 0.0
        logs.append(of_numbers + (special.logsumexp(log_p) if code < 0 else log_p[code]))
        means.append(mean + gain @ (row[known] - mean[known]))
        seconds.append(covariance - gain @ covariance[known] + np.outer(means[-1], means[-1]))
    share = special.softmax(logs)
    return special.logsumexp(logs), share @ np.array(means), np.tensordot(share, seconds, 1)


def rows_with_all_patterns(rng):
    """Each pattern of gaps of the three numbers and the category."""
    z, codes = rng.normal(size=(16, 3)), rng.integers(3, size=(16, 1))
    missing = (np.arange(16)[:, None] >> np.arange(4)) % 2 == 1
    return Rows(np.where(missing[:, :3], np.nan, z).astype(np.float32), np.where(missing[:, 3:], -1, codes))


def test_known_cells_have_the_density_of_the_sum_over_all_clusters(rng):
    """Estimates are unbiased, and their errors are those over seeds; whole rows and simple trees are exact."""
    tree, rows = random_tree(rng), rows_with_all_patterns(rng)
    truth = np.array([exact(tree, row, code)[0] for row, code in zip(rows.z, rows.codes[:, 0], strict=True)])
    value, error = (np.array(part) for part in zip(*[tree.estimate(seed, rows) for seed in range(200)], strict=True))
    is_sampled = error[0] > 0
    assert 4 <= is_sampled.sum() <= 12
    assert np.all((error > 0) == is_sampled)
    np.testing.assert_allclose(value[:, ~is_sampled], np.tile(truth[~is_sampled], (200, 1)), atol=1e-5)
    ratio = np.exp(value - truth)
    assert_within(ratio.mean(axis=0), 1, ratio.std(axis=0) / 200**0.5 + 1e-5, 4.5)
    z_scores = (value - truth)[:, is_sampled] / error[:, is_sampled]
    assert 0.6 < np.mean(z_scores**2) < 1.6
    backwards = tree.log_prob(0, rows[::-1])[::-1]
    np.testing.assert_allclose(backwards, value[0], rtol=1e-5)
    for simple in (random_tree(rng, ((),) * 4), random_tree(rng, num_clusters=1)):
        truth = [exact(simple, row, code)[0] for row, code in zip(rows.z, rows.codes[:, 0], strict=True)]
        found, error = simple.estimate(0, rows)
        np.testing.assert_allclose(found, truth, atol=1e-5)
        np.testing.assert_allclose(error, 0, atol=1e-5)


def test_draws_follow_the_density_given_what_is_known(rng):
    """Numbers by their moments and categories by their shares, of four patterns of gaps and of nothing known."""
    tree, num = random_tree(rng), 4000
    for known in ([1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 0]):
        row = np.where(known[:3], [0.5, -0.3, 0.8], np.nan)
        rows = Rows(np.tile(row, (num, 1)).astype(np.float32), np.full((num, 1), 1 if known[3] else -1))
        _, mean, second = exact(tree, row, rows.codes[0, 0])
        draws = [tree.fill(0, rows, 1)]
        if not any(known):
            whole = tree.sample(1, num)
            draws.append((whole.z[None], whole.codes[None]))
        for z, codes in draws:
            z = z.astype(float)
            np.testing.assert_allclose(
                z[0][:, np.array(known[:3], bool)], row[np.array(known[:3], bool)][None].repeat(num, 0)
            )
            assert_within(z[0].mean(axis=0), mean, z[0].std(axis=0) / num**0.5 + 1e-6, 4.5)
            products = z[0][:, :, None] * z[0][:, None]
            assert_within(products.mean(axis=0), second, products.std(axis=0) / num**0.5 + 1e-6, 4.5)
            # p(category | known numbers), by the density itself
            shares = [exact(tree, row, code)[0] for code in range(3)]
            expected = np.eye(3)[1] if known[3] else special.softmax(shares)
            counts = np.bincount(codes[0, :, 0], minlength=3) / num
            assert_within(counts, expected, np.sqrt(expected * (1 - expected) / num) + 1e-9, 4.5)
    several = tree.fill(0, rows[:50], 7)[0]
    assert len(np.unique(several[..., 0])) == 350  # all draws differ


def test_the_e_step_is_the_posterior_of_the_clusters(rng):
    tree, num = random_tree(rng), 5
    rows = Rows(rng.normal(size=(num, 3)).astype(np.float32), rng.integers(3, size=(num, 1)))
    structure = fitting._Structure(ORDER, PARENTS, REGRESSORS)
    counts = [np.zeros(transition.shape) for transition in tree.transitions]
    sizes = [len(given) + 2 for given in REGRESSORS]
    leaves = [np.zeros((K, 3) if c == 3 else (K, n, n)) for c, n in zip(ORDER, sizes, strict=True)]
    for row, code in zip(rows.z.astype(float), rows.codes[:, 0], strict=True):
        found = [(z, log_p[code] + stats.multivariate_normal(m, s).logpdf(row)) for z, log_p, m, s in components(tree)]
        share = special.softmax([log_p for _, log_p in found])
        for (z, _), own in zip(found, share, strict=True):
            for i, (column, parent, given) in enumerate(zip(ORDER, PARENTS, REGRESSORS, strict=True)):
                counts[i][0 if parent < 0 else z[parent], z[i]] += own
                if column == 3:
                    leaves[i][z[i], code] += own
                else:
                    cells = np.array([1.0, *row[list(given)], row[column]])
                    leaves[i][z[i]] += own * np.outer(cells, cells)
    sums = fitting._expected_sums(structure, (3,), tree, rows)
    for (of_pairs, of_leaf), pairs, leaf in zip(sums, counts, leaves, strict=True):
        np.testing.assert_allclose(of_pairs, pairs, atol=1e-5)
        np.testing.assert_allclose(of_leaf, leaf, atol=1e-5)


def test_the_m_step_has_the_moments_of_the_sums(rng):
    """Of many rows, whose pseudo-counts are few; and a cluster without rows gets the moments of all clusters."""
    x = rng.normal(size=(100_000, 3)) @ np.array([[1, 0.5, 0.2], [0, 1, -0.4], [0, 0, 0.8]])
    rows = Rows(x.astype(np.float32), rng.integers(3, size=(len(x), 1)))
    share = np.stack([np.ones(len(x)), np.zeros(len(x))], axis=1).astype(np.float32)
    structure = fitting._Structure(ORDER, PARENTS, REGRESSORS)
    leaves = fitting._leaf_sums(structure, (3,), rows, [share] * 4)
    pairs = np.array([[3000.0, 1000.0], [0.0, 0.0]])
    tree = fitting._maximum(
        structure, 3, [(pairs[:1] if p < 0 else pairs, leaf) for p, leaf in zip(PARENTS, leaves, strict=True)]
    )
    np.testing.assert_allclose(tree.transitions[1][0], [0.75, 0.25], atol=1e-3)
    np.testing.assert_allclose(tree.transitions[1][1], [0.75, 0.25], atol=1e-6)  # its pseudo-count is like all
    last = tree.leaves[3]
    own = [*REGRESSORS[3], ORDER[3]]
    np.testing.assert_allclose(last.covariance, np.tile(np.cov(x[:, own].T), (2, 1, 1)), rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(last.mean[0], x[:, own].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(np.exp(tree.leaves[1].log_theta[0]), np.bincount(rows.codes[:, 0]) / len(x), atol=1e-4)


def test_the_structure_is_the_tree_of_most_information(rng):
    """Against all sixteen trees of four columns; regressors are the earlier numbers that say most."""
    x = rng.normal(size=(4000, 3))
    x[:, 2] = x[:, 0] + 0.5 * x[:, 2]
    codes = (x[:, :1] + 0.8 * x[:, 1:2] > 0).astype(int)
    rows = Rows(x.astype(np.float32), codes)
    structure = fitting._structure(rows, (2,))
    bins = [np.searchsorted(np.quantile(c, np.linspace(0, 1, 13)[1:-1]), c) for c in x.T] + [codes[:, 0]]
    information = np.zeros((4, 4))
    for i, j in itertools.product(range(4), repeat=2):
        joint = np.histogram2d(bins[i], bins[j], bins=[np.arange(-0.5, 12), np.arange(-0.5, 12)])[0] / len(x)
        outer = joint.sum(1, keepdims=True) * joint.sum(0)
        information[i, j] = np.sum(joint[joint > 0] * np.log(joint[joint > 0] / outer[joint > 0]))
    np.testing.assert_allclose(fitting._information(np.stack(bins, axis=1)), information, atol=1e-6)
    edges = [(structure.columns[p], c) for c, p in zip(structure.columns, structure.parents, strict=True) if p >= 0]
    best = max(sum(information[i, j] for i, j in tree) for tree in trees_of_four())
    assert sum(information[i, j] for i, j in edges) == pytest.approx(best, abs=1e-6)
    place = {column: i for i, column in enumerate(structure.columns)}
    for column, given in zip(structure.columns, structure.regressors, strict=True):
        earlier = [j for j in range(3) if column < 3 and place[j] < place[column]]
        assert list(given) == sorted(earlier, key=lambda j, column=column: -information[column, j])


def trees_of_four():
    edges = list(itertools.combinations(range(4), 2))
    for chosen in itertools.combinations(edges, 3):
        group = list(range(4))
        for i, j in chosen:
            group = [group[i] if g == group[j] else g for g in group]
        if len(set(group)) == 1:
            yield chosen


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_fit_finds_the_tree_that_made_the_rows(rng, share):
    """Fresh rows lose little against the truth, with a fifth of the cells missing or none."""
    truth = random_tree(np.random.default_rng(5))
    rows, fresh = truth.sample(0, 4000), truth.sample(1, 2000)
    lacks_z, lacks_code = (rng.random(cells.shape) < share for cells in (rows.z, rows.codes))
    gaps = Rows(np.where(lacks_z, np.nan, rows.z), np.where(lacks_code, -1, rows.codes))
    found = fit_tree(0, gaps[1000:], gaps[:1000], (3,), (1, 2, 4))
    assert found.value == pytest.approx(np.mean(found.tree.log_prob(0, gaps[:1000])))
    loss = truth.log_prob(0, fresh) - found.tree.log_prob(0, fresh)
    assert -0.02 < loss.mean() < (0.05 if share else 0.03)
    one = fit_tree(0, gaps[1000:], gaps[:1000], (3,), (1,)).tree
    assert np.mean(truth.log_prob(0, fresh) - one.log_prob(0, fresh)) > 0.1  # more clusters were needed
    assert one.num_clusters == 1


def test_gaps_do_not_weaken_what_columns_say_of_each_other(rng):
    """Correlations of 0.95 with four cells in ten missing, against the normal distribution of the rows."""
    covariance = 0.95 + 0.05 * np.eye(4)
    x, fresh = (rng.multivariate_normal(np.zeros(4), covariance, num) for num in (3000, 2000))
    gaps = Rows(np.where(rng.random(x.shape) < 0.4, np.nan, x).astype(np.float32), np.zeros((3000, 0), int))
    found = fit_tree(0, gaps[500:], gaps[:500], (), (1,)).tree
    exact = stats.multivariate_normal(np.zeros(4), covariance).logpdf(fresh)
    assert np.mean(exact - found.log_prob(0, Rows(fresh.astype(np.float32), np.zeros((2000, 0), int)))) < 0.05


def test_many_rows_say_what_never_happens(rng):
    """The pseudo-counts are those of the rows, not of a minibatch: two clusters that always go together."""
    kind = rng.choice([-5.0, 5.0], (4000, 1))
    rows = Rows((kind + rng.normal(size=(4000, 2))).astype(np.float32), np.zeros((4000, 0), int))
    tree = fit_tree(0, rows[500:], rows[:500], (), (2,)).tree
    assert 0 < tree.transitions[1].min() < 2e-4  # 0.15 of 1,750 rows


def test_the_best_epoch_is_kept(rng):
    """Of noise many clusters learn the rows by heart: the first epoch is better on others than the last."""
    rows = Rows(rng.normal(size=(300, 2)).astype(np.float32), np.zeros((300, 0), int))
    first, all_of_them = (fit_tree(0, rows[:200], rows[200:], (), (60,), seconds=s).value for s in (0, np.inf))
    assert all_of_them >= first


def test_trees_grow_while_held_out_rows_gain_and_there_is_time(rng):
    x = rng.normal(size=(600, 2)).astype(np.float32)
    rows = Rows(x, np.zeros((600, 0), int))
    plain = fit_tree(0, rows[100:], rows[:100], (), (1, 60, 128))
    assert plain.tree.num_clusters == 1
    ring = Rows((x / np.linalg.norm(x, axis=1, keepdims=True) * (1 + 0.05 * x[:, :1])).astype(np.float32), rows.codes)
    grown = fit_tree(0, ring[100:], ring[:100], (), (1, 4, 10))
    assert grown.tree.num_clusters == 10
    assert fit_tree(0, ring[100:], ring[:100], (), (1, 4, 10), seconds=0).tree.num_clusters == 1
    start = Tried(plain.tree, 1e9)
    assert fit_tree(0, ring[100:], ring[:100], (), (4,), start=start) is start
    other = fit_tree(1, ring[100:], ring[:100], (), (4,)).tree
    assert not np.allclose(
        other.log_prob(0, ring), fit_tree(0, ring[100:], ring[:100], (), (4,)).tree.log_prob(0, ring)
    )

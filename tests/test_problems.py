"""The problems themselves: they train, their oracle is finite, and no Keras layer is missing."""

import inspect

import keras
import numpy as np
import pytest

from tests import oracle
from tests.cases import make_case, set_dtype
from tests.problems import PROBLEMS, by_tag

# Layers that have no trainable weight of their own. A layer that Keras adds is in neither set
# and fails the test until it gets a problem.
WITHOUT_WEIGHTS = frozenset(
    """
    Activation ActivityRegularization Add AlphaDropout AugMix AutoContrast Average
    CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization
    Cropping1D Cropping2D Cropping3D CutMix Discretization Dot Dropout ELU Equalization Flatten
    GaussianDropout GaussianNoise HashedCrossing Hashing Identity InputLayer IntegerLookup Lambda
    LeakyReLU Masking MaxNumBoundingBoxes Maximum MelSpectrogram Minimum MixUp Multiply
    Normalization Permute Pipeline RandAugment ReLU RepeatVector Rescaling Reshape Resizing
    STFTSpectrogram Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D
    StringLookup Subtract TextVectorization UnitNormalization UpSampling1D UpSampling2D
    UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
    """.split()
)
# Layers of other backends, abstract ones, and what is no layer.
NOT_OF_TENSORFLOW = frozenset({"FlaxLayer", "JaxLayer", "TorchModuleWrapper", "TFSMLayer"})
NO_LAYERS = frozenset({"Layer", "Wrapper", "InputSpec"})


def _names(prefixes: tuple[str, ...]) -> set[str]:
    return {name for name in vars(keras.layers) if name.startswith(prefixes)}


@pytest.mark.thinned(3)
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_has_finite_gradients(problem, dtype):
    if dtype == "float64" and "float32_only" in problem.tags:
        pytest.skip("Keras itself cannot run this layer in float64")
    set_dtype(dtype)
    case = make_case(problem)
    loss, gradients = oracle.loss_and_gradients(case.model, *case.batch)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in gradients)
    if "partly_float32" not in problem.tags:
        assert all(v.dtype == dtype for v in case.model.trainable_variables)
    if problem.name != "sample_weight_all_zero":
        assert oracle.global_norm(gradients) > 0


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")  # one has none on purpose
@pytest.mark.slow  # `train_on_batch` compiles one function per problem
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_trains_one_step(problem):
    case = make_case(problem)
    assert np.isfinite(np.sum(case.model.train_on_batch(*case.batch)))


def test_names_are_unique():
    names = [problem.name for problem in PROBLEMS]
    assert len(names) == len(set(names))


def test_every_trainable_layer_has_a_problem():
    covered = set()
    for problem in by_tag("layer"):
        covered |= {type(layer) for layer in problem.build()._flatten_layers()}
    without = WITHOUT_WEIGHTS | NOT_OF_TENSORFLOW | NO_LAYERS
    without = without | _names(("Random", "Adaptive", "Average", "Avg", "Max", "Global"))
    missing = {
        name
        for name, value in vars(keras.layers).items()
        if inspect.isclass(value) and name not in without and value not in covered
    }
    assert not missing, f"trainable layers without a problem: {sorted(missing)}"

/* SPDX-License-Identifier: Apache-2.0 */
#include "bind.h"

/* Whether the gradient is wanted, and where it goes. */
static bool
open_gradient(const module_state *state, PyObject *wanted, const tensor *logits,
              tensor *grad)
{
    civ_dtype dtype = civ_dtype_compute(logits->mat.dtype);
    if (wanted == Py_True) {
        return tensor_new("grad", logits->ndim, logits->shape, dtype, grad);
    }
    if (!tensor_write(state, wanted, "grad", grad) ||
        !tensor_same_shape(state, logits, grad)) {
        return false;
    }
    if (grad->mat.dtype != dtype) {
        PyErr_Format(state->dtype_error,
                     "grad: has dtype %s; expected %s for logits of %s",
                     civ_dtype_text(grad->mat.dtype), civ_dtype_text(dtype),
                     civ_dtype_text(logits->mat.dtype));
        return false;
    }
    return true;
}

static void
raise_set_nll(const module_state *state, civ_status status, const tensor *logits)
{
    if (status == CIV_NONFINITE && raise_nonfinite(state, logits, true)) {
        return;
    }
    if (status == CIV_NONFINITE) {
        PyErr_SetString(state->nonfinite_error,
                        "logits: a row is -inf throughout; expected at least one "
                        "finite value in each row. Drop that row");
        return;
    }
    raise_status(state, status, "set_nll");
}

/* set_nll(logits, ids, offsets, grad) -> loss or (loss, grad); grad: bool or array */
static PyObject *
set_nll(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor logits = {0}, loss = {0}, grad = {0};
    sets_arg sets = {0};
    PyObject *result = NULL;
    if (!expect_arguments("set_nll", n_args, 4)) {
        return NULL;
    }
    bool with_grad = args[3] != Py_False;
    if (!tensor_read(state, args[0], "logits", &logits) ||
        !sets_read(state, args[1], args[2], &sets) ||
        (with_grad && !open_gradient(state, args[3], &logits, &grad)) ||
        !tensor_new("loss", 1, &logits.mat.n_rows, CIV_F64, &loss)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = civ_set_nll(&call.exec, &logits.mat, &sets.sets, loss.mat.data,
                                    with_grad ? &grad.mat : NULL);
    call_end(&call);
    if (status != CIV_OK) {
        raise_set_nll(state, status, &logits);
        goto done;
    }
    if (!with_grad) {
        result = tensor_result(&loss, Py_None);
        goto done;
    }
    PyObject *gradient = tensor_result(&grad, args[3] == Py_True ? Py_None : args[3]);
    result = Py_BuildValue("ON", loss.owner, gradient);
done:
    tensor_release(&logits);
    tensor_release(&loss);
    tensor_release(&grad);
    sets_release(&sets);
    return result;
}

PyMethodDef bind_losses_methods[] = {
    MODULE_FUNCTION(set_nll),
    {NULL, NULL, 0, NULL},
};

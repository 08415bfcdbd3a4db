/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products and positive definite systems, in float64. */
#include "bind.h"

#include <string.h>

typedef civ_status (*product_fn)(const civ_exec *, const civ_mat *, const civ_mat *,
                                 const civ_mat *);

static PyObject *
product(PyObject *module, PyObject *const *args, Py_ssize_t n_args, const char *name,
        product_fn fn, bool transposed)
{
    module_state *state = module_get_state(module);
    tensor a = {0}, b = {0}, out = {0};
    PyObject *result = NULL;
    if (!expect_arguments(name, n_args, 2) || !tensor_read(state, args[0], "a", &a) ||
        !tensor_read(state, args[1], "b", &b)) {
        goto done;
    }
    int64_t shape[] = {a.mat.n_rows, transposed ? b.mat.n_rows : b.mat.n_cols};
    if (!tensor_new("out", 2, shape, CIV_F64, &out)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = fn(&call.exec, &a.mat, &b.mat, &out.mat);
    call_end(&call);
    if (status == CIV_OK) {
        result = tensor_result(&out, Py_None);
    } else {
        raise_status(state, status, name);
    }
done:
    tensor_release(&a);
    tensor_release(&b);
    tensor_release(&out);
    return result;
}

/* product_nt(a, b) -> a b^T */
static PyObject *
product_nt(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return product(module, args, n_args, "product_nt", civ_product_nt, true);
}

/* gram(a, b) -> a b^T, which is symmetric */
static PyObject *
gram(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return product(module, args, n_args, "gram", civ_gram, true);
}

/* product_nn(a, b) -> a b */
static PyObject *
product_nn(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return product(module, args, n_args, "product_nn", civ_product_nn, false);
}

/* A contiguous float64 array of one axis as a packed triangle. */
static bool
as_packed(const module_state *state, const tensor *x, civ_packed *packed)
{
    int64_t size = x->mat.n_rows * x->mat.n_cols;
    *packed = (civ_packed){x->mat.data, civ_packed_order(size)};
    if (x->ndim != 1 || x->packed != NULL || x->mat.dtype != CIV_F64 || packed->n < 0) {
        PyErr_Format(state->argument_error,
                     "%s: is no packed triangle; expected a contiguous float64 array "
                     "of one axis, as cintervene.solvers.packed makes them",
                     x->name);
        return false;
    }
    return true;
}

/* moment_add(x, out) -> out, a packed triangle, having added x^T x */
static PyObject *
moment_add(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor x = {0}, out = {0};
    civ_packed packed;
    PyObject *result = NULL;
    if (!expect_arguments("moment_add", n_args, 2) ||
        !tensor_read(state, args[0], "x", &x) ||
        !tensor_write(state, args[1], "out", &out) ||
        !as_packed(state, &out, &packed)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = civ_moment_add(&call.exec, &x.mat, &packed);
    call_end(&call);
    if (status == CIV_OK) {
        result = tensor_result(&out, args[1]);
    } else {
        raise_status(state, status, "moment_add");
    }
done:
    tensor_release(&x);
    tensor_release(&out);
    return result;
}

/* spd_solve(factor, b) -> b, now b A^-1; the factor is square, or a packed triangle */
static PyObject *
spd_solve(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor factor = {0}, b = {0};
    civ_packed packed;
    PyObject *result = NULL;
    if (!expect_arguments("spd_solve", n_args, 2) ||
        !tensor_read(state, args[0], "factor", &factor) ||
        !tensor_write(state, args[1], "b", &b) ||
        (factor.ndim == 1 && !as_packed(state, &factor, &packed))) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = factor.ndim == 1
                            ? civ_packed_solve(&call.exec, &packed, &b.mat)
                            : civ_spd_solve(&call.exec, &factor.mat, &b.mat);
    call_end(&call);
    if (status == CIV_OK) {
        result = tensor_result(&b, args[1]);
    } else {
        raise_status(state, status, "spd_solve");
    }
done:
    tensor_release(&factor);
    tensor_release(&b);
    return result;
}

/* spd_factor(a) -> a, now its lower Cholesky factor; square, or a packed triangle */
static PyObject *
spd_factor(PyObject *module, PyObject *arg)
{
    module_state *state = module_get_state(module);
    tensor a = {0};
    civ_packed packed;
    PyObject *result = NULL;
    if (!tensor_write(state, arg, "a", &a) ||
        (a.ndim == 1 && !as_packed(state, &a, &packed))) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = a.ndim == 1 ? civ_packed_factor(&call.exec, &packed)
                                    : civ_spd_factor(&call.exec, &a.mat);
    call_end(&call);
    if (status != CIV_OK) {
        raise_status(state, status, "spd_factor");
        goto done;
    }
    result = tensor_result(&a, arg);
done:
    tensor_release(&a);
    return result;
}

/* check_finite(x, name): NonFiniteError naming the first bad element */
static PyObject *
check_finite(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    module_state *state = module_get_state(module);
    tensor x = {0};
    PyObject *result = NULL;
    const char *name = n_args == 2 ? PyUnicode_AsUTF8(args[1]) : "";
    if (name != NULL && expect_arguments("check_finite", n_args, 2) &&
        tensor_read(state, args[0], name, &x) && !raise_nonfinite(state, &x, false)) {
        result = Py_NewRef(Py_None);
    }
    tensor_release(&x);
    return result;
}

PyMethodDef bind_products_methods[] = {
    MODULE_FUNCTION(product_nt),
    MODULE_FUNCTION(gram),
    MODULE_FUNCTION(product_nn),
    MODULE_FUNCTION(moment_add),
    {"spd_factor", spd_factor, METH_O, NULL},
    MODULE_FUNCTION(spd_solve),
    MODULE_FUNCTION(check_finite),
    {NULL, NULL, 0, NULL},
};

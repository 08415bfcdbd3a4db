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

typedef civ_status (*update_fn)(const civ_exec *, const civ_mat *, const civ_mat *);

/* Calls fn on a matrix that is read and one that is changed; returns the latter. */
static PyObject *
update(PyObject *module, PyObject *const *args, Py_ssize_t n_args, const char *name,
       const char *read, const char *changed, update_fn fn)
{
    module_state *state = module_get_state(module);
    tensor x = {0}, out = {0};
    PyObject *result = NULL;
    if (!expect_arguments(name, n_args, 2) || !tensor_read(state, args[0], read, &x) ||
        !tensor_write(state, args[1], changed, &out)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = fn(&call.exec, &x.mat, &out.mat);
    call_end(&call);
    if (status == CIV_OK) {
        result = tensor_result(&out, args[1]);
    } else {
        raise_status(state, status, name);
    }
done:
    tensor_release(&x);
    tensor_release(&out);
    return result;
}

/* moment_add(x, out) -> out, having added x^T x */
static PyObject *
moment_add(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return update(module, args, n_args, "moment_add", "x", "out", civ_moment_add);
}

/* spd_solve(factor, b) -> b, now b A^-1 */
static PyObject *
spd_solve(PyObject *module, PyObject *const *args, Py_ssize_t n_args)
{
    return update(module, args, n_args, "spd_solve", "factor", "b", civ_spd_solve);
}

/* spd_factor(a) -> a, now its lower Cholesky factor */
static PyObject *
spd_factor(PyObject *module, PyObject *arg)
{
    module_state *state = module_get_state(module);
    tensor a = {0};
    PyObject *result = NULL;
    if (!tensor_write(state, arg, "a", &a)) {
        goto done;
    }
    core_call call;
    call_begin(&call, state);
    civ_status status = civ_spd_factor(&call.exec, &a.mat);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The module cintervene._core: its start, and the list of function groups. */
#include "bind.h"

/* Adding a group of functions is one line here and one in bind.h. */
static PyMethodDef *const groups[] = {
    bind_runtime_methods,     bind_arrays_methods, bind_losses_methods,
    bind_projections_methods, bind_update_methods, bind_products_methods,
    bind_solve_methods,       bind_pgd_methods,    bind_head_methods,
};

static int
module_exec(PyObject *module)
{
    module_state *state = module_get_state(module);
    if (errors_load(state) < 0 || tensor_import_numpy() < 0) {
        return -1;
    }
    civ_status status = civ_init();
    if (status != CIV_OK) {
        raise_status(state, status,
                     "environment variable CINTERVENE_CPU (expected baseline, avx2, "
                     "avx512 or neon, and a processor that has it; unset it to choose "
                     "the best)");
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(groups); i++) {
        if (PyModule_AddFunctions(module, groups[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    return errors_traverse(module_get_state(module), visit, arg);
}

static int
module_clear(PyObject *module)
{
    errors_clear(module_get_state(module));
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030d0000
    /* Arrays are borrowed from Python for the length of a call, under the GIL. A
     * free-threaded interpreter switches it on when it imports this. */
    {Py_mod_gil, Py_MOD_GIL_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "cintervene._core",
    .m_doc = "C core of cintervene; use the functions of the package instead.",
    .m_size = sizeof(module_state),
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}

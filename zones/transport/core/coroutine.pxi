# Awaitables and coroutines of extension types.
#
# The interpreter resumes them by the slot `am_send` (https://docs.python.org/3/c-api/typeobj.html#c.PyAsyncMethods.am_send). Cython has
# no way to define it. By `__next__`, each result would cost an exception with a traceback.

cdef extern from *:
    """
    /* Resume a coroutine. Returns its result, with is_over, or what it waits for. */
    static PyObject *evcache_resume(PyObject *coroutine, int *is_over)
    {
        PyObject *result = NULL;
        PySendResult kind = PyIter_Send(coroutine, Py_None, &result);
        *is_over = kind == PYGEN_RETURN;
        return kind == PYGEN_ERROR ? NULL : result;
    }

    static PyObject *evcache_next(PyObject *coroutine)
    {
        PyObject *result = NULL;
        PySendResult kind = Py_TYPE(coroutine)->tp_as_async->am_send(coroutine, Py_None, &result);
        if (kind == PYGEN_RETURN) {
            if (PyTuple_Check(result) || PyExceptionInstance_Check(result)) {
                PyObject *stop = PyObject_CallFunctionObjArgs(PyExc_StopIteration, result, NULL);
                if (stop != NULL)
                    PyErr_SetObject(PyExc_StopIteration, stop);
                Py_XDECREF(stop);
            }
            else
                PyErr_SetObject(PyExc_StopIteration, result);
            Py_DECREF(result);
            return NULL;
        }
        return kind == PYGEN_ERROR ? NULL : result;
    }

    /* Have the interpreter resume an awaitable by this function, without an exception for each result. */
    static void evcache_resume_by(PyTypeObject *type, void *send)
    {
        type->tp_as_async->am_send = (sendfunc)send;
        type->tp_iternext = evcache_next;
        PyType_Modified(type);
    }

    static void evcache_warn_of_unawaited(const char *name)
    {
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", name) < 0)
            PyErr_WriteUnraisable(NULL); /* warnings are errors */
    }
    """
    enum:
        PYGEN_RETURN
        PYGEN_NEXT
    object evcache_resume(object coroutine, bint *is_over)
    void evcache_resume_by(PyTypeObject *type, void *send)
    void evcache_warn_of_unawaited(const char *name)

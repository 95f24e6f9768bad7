import torch, time, copy
from distill_core import teacher, dataset, config, student, training, batches
from distill_core.evaluation import score,model_logits,row_labels
def test_a(tiny_bert, fitted_teacher, rows, head):
    def job(w=None,**k): return training.Job(rows["train"],rows["validation"],head,w or config.LossWeights(),config.TrainingSettings(**{"precision":"fp32","batch_size":8,"epochs":4,**k}))
    sc=lambda m: score(head,model_logits(m,rows["validation"]),row_labels(rows["validation"]))["accuracy"]
    print("teacher",sc(fitted_teacher))
    for layers in ((0,2),(1,3),(0,1),(2,3),(0,)):
        st=student.build_student(fitted_teacher,"bert.encoder.layer.",layers)
        t=time.time(); s=training.distill(st,fitted_teacher,job(epochs=3),lambda r:None)
        print(layers,sc(st),[e.metrics["accuracy"] for e in s.epochs],[round(x.total,2) for x in s.steps][::5], round(time.time()-t,2))
    raw=teacher.load_model(tiny_bert)
    for lr in (0.01,0.02,0.03,0.05,0.1,0.3):
        for name, m in (("raw",raw),("fit",fitted_teacher)):
            s=training.distill(m,None,job(epochs=6,patience=6,learning_rate=lr),lambda r:None)
            print(lr,name,[(round(e.metrics["accuracy"],2),e.best) for e in s.epochs], sc(s.model))
    s=training.distill(fitted_teacher,fitted_teacher,job(precision="bf16",max_steps=4),lambda r:None); print({p.dtype for p in s.model.parameters()}, [x.total for x in s.steps])
    s=training.distill(fitted_teacher,fitted_teacher,job(precision="auto",max_steps=4),lambda r:None); print(s.precision)
    for lr in (1e3,1e10,1e20,1e30):
        try: s=training.distill(fitted_teacher,fitted_teacher,job(learning_rate=lr),lambda r:None); print(lr, [x.total for x in s.steps][-1])
        except Exception as e: print(type(e),e)

import jax; jax.config.update("jax_enable_x64",True)
import jax.numpy as jnp, numpy as np, mpmath as mp
mp.mp.dps=60
from jepa_dyn.theory import barlow_twins as bt, barlow_twins_off_diagonal as od, barlow_twins_variants as va
rng=np.random.default_rng(0)
gs=10**rng.uniform(0,6,600); 
F=np.array(od.late_factor(gs)); ref=[mp.sqrt(mp.pi)*mp.gamma((mp.mpf(g)+1)/2)/mp.gamma(mp.mpf(g)/2) for g in gs]
print('F',float(max(abs(mp.mpf(float(a))/b-1) for a,b in zip(F,ref))))
from scipy.integrate import solve_ivp
import time
def ref_log(rate,s0,T):  # d log s/dt
    r=solve_ivp(lambda t,u:[rate(np.exp(u[0]))],(0,T[-1]),[np.log(s0)],"DOP853",T,rtol=1e-13,atol=1e-14); return np.exp(r.y[0])
for g in (1.,.3,-.7,1e-3,50.):
  for s0 in (1e-6,.3,.9,1.7,20.):
    T=np.linspace(0,3/abs(g)*(1 if s0>1e-3 else 2),7)
    q=ref_log(lambda s:8*g*(1-g*s*s)**3,s0,T)
    a=np.array(va.quartic_singular_value(T,s0,g))
    nu,al=abs(g)*1.7,.2
    p=ref_log(lambda s:4*g*(1-g*s*s)/(nu*s*s+al),s0,T)
    b=np.array(va.preconditioned_singular_value(T,s0,g,nu,al))
    nu2=.01; p2=ref_log(lambda s:4*g*(1-g*s*s)/(nu2*abs(g)*s*s+al),s0,T)
    b2=np.array(va.preconditioned_singular_value(T,s0,g,nu2*abs(g),al))
    back=np.array(va.quartic_time_to_reach(a[1:],s0,g))/T[1:]-1
    back2=np.array(bt.time_to_reach(bt.singular_value(T[1:],s0,g),s0,g))/T[1:]-1
    print(g,s0,[f"{x:.1e}" for x in (abs(a/q-1).max(),abs(b/p-1).max(),abs(b2/p2-1).max(),abs(back).max(),abs(back2).max())])

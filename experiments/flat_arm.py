"""flat_arm.py VARIANT OUT STEPS [RUN]: another arm behind the eyes of RUN/sight, on demonstrations, then 100 validation scenes. "mlp-256-1024-2" is the one of the lab notes."""
import sys, types
from dataclasses import replace, asdict
from pathlib import Path
import numpy as np, torch
from torch import nn
torch.set_num_threads(1)
from ornstein.recipes.rt1_tabletop import RT1TabletopRecipe
from ornstein.recipes.rt1_examples import RT1Examples
from ornstein.recipes.rt1_practice import learn_to_act, loaded
from ornstein.recipes import rt1_practice
from ornstein.policies import RT1Policy
from ornstein.policies.rt1 import RT1, waves, _PLACE_OCTAVES, _STATE_OCTAVES
from ornstein.training import initialise
from ornstein.networks.attention import MLP
RUN=Path(sys.argv[4] if len(sys.argv)>4 else "runs/rt1-tabletop")
variant,out=sys.argv[1],Path(sys.argv[2]); steps=int(sys.argv[3]) if len(sys.argv)>3 else 6000
recipe=replace(RT1TabletopRecipe(),data=RUN/"data",cache=RUN/"cache",scenes=())
eyes=loaded(RUN/"sight")
examples=RT1Examples.prepare(replace(recipe,views=0,sentences=0),out)
class Res(nn.Module):
    def __init__(s,w,h):
        super().__init__(); s.n=nn.LayerNorm(w); s.a=nn.Linear(w,h); s.b=nn.Linear(h,w)
    def forward(s,x): return x+s.b(torch.nn.functional.silu(s.a(s.n(x))))
class Flat(nn.Module):
    def __init__(s,size,w,h,d,outw):
        super().__init__(); s.i=nn.Linear(size,w); s.r=nn.Sequential(*[Res(w,h) for _ in range(d)]); s.n=nn.LayerNorm(w); s.o=nn.Linear(w,outw)
    def forward(s,x): return s.o(s.n(s.r(s.i(x))))
class FlatRT1(RT1):
  def decide(self,tokens,words,state=None):
    f,p=tokens[...,:-2],tokens[...,-2:]
    x=[torch.cat([f,waves(p,self.octaves)],-1).flatten(2),waves((state-self.state_mean)/self.state_std/3,self.soct),words[:,None].expand(-1,tokens.shape[1],-1)]
    return self.flat(torch.cat(x,-1)).float()
def build():
    config=eyes.config
    head=examples.head
    if variant=="wide": config=replace(config,width=256,depth=3,heads=8)
    if variant=="deep": config=replace(config,depth=4)
    if variant=="ar": head={**head,"decoding":"autoregressive"}
    net=(FlatRT1 if variant.startswith("mlp") else RT1)(config,head,examples.contract)
    net.state_mean.copy_(eyes.state_mean); net.state_std.copy_(eyes.state_std)
    for part in net.EYES: getattr(net,part).load_state_dict(getattr(eyes,part).state_dict())
    if variant.startswith("mlp"):
        w,h,d=map(int,variant.split("-")[1:4]); net.octaves=_PLACE_OCTAVES; net.soct=_STATE_OCTAVES
        c=net.vision.out_channels+2*(1+2*net.octaves)
        net.flat=Flat(config.tokens*c+config.state_size*(1+2*net.soct)+config.language_width,w,h,d,config.width)
        del net.transformer, net.token_in, net.state_in, net.language_in
    return net
def evaluate(model,examples,first,n):
    from collections import Counter
    from ornstein.actions import ChunkExecution
    from ornstein.evaluation.trials import PolicyPlayer, try_scene, world_for
    from ornstein.simulation.tabletop import suite
    pl=PolicyPlayer(RT1Policy(model,examples.contract,execution=ChunkExecution(1)))
    env=world_for(examples.contract,suite("all")); won,of=Counter(),Counter()
    for k in range(first,first+n):
        tr=try_scene(pl,env,2_000_000+k); s=tr.scene.tasks[0].skill; of[s]+=1; won[s]+=tr.success
    print(variant,"scenes",first,n,"won",sum(won.values()),{s:f"{won[s]}/{of[s]}" for s in sorted(of)},flush=True)
if __name__=="__main__":
    net=initialise(build,0)
    print(sum(p.numel() for n,p in net.named_parameters() if n.split(".")[0] not in net.EYES),flush=True)
    result=learn_to_act(recipe,examples,recipe.cache,replace(recipe.arm,steps=steps,preview_every=10**6),net,None,out,resume=False)
    evaluate(result.model,examples,40,100)

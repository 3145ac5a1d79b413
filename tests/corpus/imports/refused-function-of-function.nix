inputs:
{ config, ... }:
{ imports = [ ]; }

{ lib, ... }:
if true then { imports = [ ]; } else { }
